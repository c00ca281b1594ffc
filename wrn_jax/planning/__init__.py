"""Look before you run: what a recipe will do, what it costs, the step compiled for accelerators that are not there, and whether
this machine is fit.

In: a `Config`. Out: text, tables, pictures. Imports `training` and below.
"""
