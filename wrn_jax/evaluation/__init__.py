"""Evaluation: whole splits, every image once, and the figures that follow from logits.

In: a network with its parameters, images. Out: figures. Imports `models`, `data` and below.
"""
