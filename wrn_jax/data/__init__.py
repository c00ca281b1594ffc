"""Images: loading, preparation, drawn shapes, augmentation, mixing, corruptions.

In: a `config.Data` and augmentation strengths. Out: arrays of bytes on the host, and functions on arrays of the device. Imports
`config` and below.
"""
