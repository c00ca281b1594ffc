"""Weights, images and labels from a formula, so that vector files need not store them.

NumPy only. Integer mixing (SplitMix64) and correctly rounded float64 operations give the same bits on every platform;
a sine of the index would depend on the maths library in the last place. Both the script that makes the vectors and the
tests that read them import this file, and the vector files keep a CRC-32 of what it returned.
"""

import zlib

import numpy as np

# A handful of the hundred classes: ten small steps can then get some predictions right, which makes the accuracy
# counts worth comparing.
LABELS = np.array([3, 17, 42, 64, 99], dtype=np.int32)


def _bits(name, count):
    """`count` well-mixed uint64 numbers that depend on `name` and the index alone."""
    start = np.uint64(zlib.crc32(name.encode())) << np.uint64(32)
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _uniform(name, shape):
    """float64 in [-1, 1), exact multiples of 2**-52."""
    count = int(np.prod(shape, dtype=np.int64))
    return ((_bits(name, count) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0).reshape(shape)


def formula_weights(name, shape):
    """The float32 array of a state_dict entry, in PyTorch's layout (convolutions [out, in, h, w], linear [out, in]).

    Spreads follow the usual initialisation (convolutions: variance 2 / fan-out; linear: Xavier uniform). BatchNorm
    scales, shifts and running statistics are all non-trivial, so that mixing two of them up shows. The shifts are
    1.5 to 2 of either sign: few of a million inputs to a ReLU then lie so near zero that rounding decides their sign.
    One such flip changes a gradient by 0.3 %, a thousand times what rounding does otherwise.
    """
    u = _uniform(name, shape)
    if name.endswith("bias") and "bn" in name:
        values = np.sign(u) * (1.5 + 0.5 * np.abs(u))
    elif name.endswith(("running_mean", "bias")):
        values = 0.2 * u
    elif name.endswith("running_var") or len(shape) == 1:
        values = 1.0 + 0.25 * u
    elif len(shape) == 4:
        fan_out = shape[0] * shape[2] * shape[3]
        values = np.sqrt(3.0) * np.sqrt(2.0 / fan_out) * u
    elif len(shape) == 2:
        values = np.sqrt(6.0 / (shape[0] + shape[1])) * u
    else:
        raise ValueError(f"no formula for {name} of shape {shape}")
    return values.astype(np.float32)


def formula_batch(name, size):
    """Images [size, 32, 32, 3] uint8 and labels [size] int32: a blocky pattern per class under a quarter of noise."""
    labels = LABELS[(_bits(f"{name}/labels", size) % np.uint64(len(LABELS))).astype(np.int64)]
    noise = (_bits(f"{name}/noise", size * 32 * 32 * 3) >> np.uint64(56)).astype(np.int64).reshape(size, 32, 32, 3)
    patterns = np.stack([_class_pattern(label) for label in labels])
    return ((3 * patterns + noise) // 4).astype(np.uint8), labels


def _class_pattern(label):
    """[32, 32, 3] int64 in 0..255: 8 x 8 blocks of 4 x 4 pixels."""
    blocks = (_bits(f"class{label}", 8 * 8 * 3) >> np.uint64(56)).astype(np.int64).reshape(8, 8, 3)
    return blocks.repeat(4, axis=0).repeat(4, axis=1)


def formula_permutation(name, size):
    """A fixed permutation of 0..size-1, int32."""
    return np.argsort(_bits(name, size), kind="stable").astype(np.int32)


def sample_stride(size, limit=1024):
    """Stride that takes at most `limit` entries of a flat array of `size`.

    Never a multiple of 2 or 3 (unless it is 1): such a stride would visit the same kernel tap or channel for ever.
    """
    stride = max(1, -(-size // limit))
    while stride > 1 and (stride % 2 == 0 or stride % 3 == 0):
        stride += 1
    return stride


def crc32(arrays):
    """CRC-32 of the bytes of the arrays, one after the other: tells whether the formula still gives the same bits."""
    value = 0
    for array in arrays:
        value = zlib.crc32(np.ascontiguousarray(array).tobytes(), value)
    return np.uint32(value)
