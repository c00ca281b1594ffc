"""The process: how it begins and ends, errors, devices, cores, allocator, signals, files, the Hub, console, drawing, versions.

In: nothing of the package. Out: what every other room stands on. Imports no other room.
"""
