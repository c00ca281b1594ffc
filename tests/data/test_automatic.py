"""The 14 operations against Pillow's results, byte for byte; draws, rounds and sharding of TrivialAugment and RandAugment."""

import io
import itertools
import lzma
import pathlib

import jax
import numpy as np
import pytest

from wrn_jax.data import automatic
from wrn_jax.data.pixels import pack, unpack

VECTORS = np.load(io.BytesIO(lzma.decompress((pathlib.Path(__file__).parents[1] / "vectors/automatic.npz.xz").read_bytes())))
CASES = np.array(list(itertools.product(range(2), range(14), range(31), range(2))), np.int32)

operate = jax.jit(lambda images, *choice: unpack(automatic.operate(pack(images), *choice)))


@pytest.mark.parametrize("prefix", ["", "wide_"])
def test_operations_are_pillows_byte_for_byte(prefix):
    for image, results in zip(VECTORS[f"{prefix}images"], VECTORS[f"{prefix}results"], strict=True):
        wide, operation, strength, negative = CASES.T
        images = np.broadcast_to(image, (len(CASES), *image.shape))
        found = np.asarray(operate(images, operation, strength, negative == 1, wide == 1))
        wrong = (found != results.reshape(found.shape)).any(axis=(1, 2, 3))
        assert not wrong.any(), {automatic.OPERATIONS[index] for index in operation[wrong]}
