"""The process: errors, devices, allocator, signals, files, console, versions and hardware.

In: nothing of the package. Out: what every other room stands on. Imports no other room.
"""
