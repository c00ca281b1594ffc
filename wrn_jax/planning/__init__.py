"""Look before you run: what a recipe will do, what it costs, and the step compiled for accelerators that are not there.

In: a `Config`. Out: text, tables, pictures. Imports `training` and below.
"""
