"""Training: one jitted step, and the run around it.

In: a `Config` and a work directory. Out: checkpoints and records. Imports `evaluation` and below.
"""
