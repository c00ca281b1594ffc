"""Corrupted test images that a network can be evaluated on: drawn here, or read from files of CIFAR-100-C."""

import dataclasses
import functools
import zlib
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from wrn_jax.data import corruptions
from wrn_jax.data.loading import Split
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import reason

BLOCK = 500
"""Images that are corrupted together. The draws depend on it, so it does not follow the batch size."""

IN_BENCHMARK = {name: not corruption.extra for name, corruption in corruptions.CORRUPTIONS.items()} | {
    "frost": True,
    "spatter": False,
}
"""The corruptions of CIFAR-100-C, and whether the benchmark's mean counts them; the last two are not made here."""


@dataclasses.dataclass(frozen=True, eq=False)
class Corrupted:
    """Corrupted test images.

    Attributes:
      origin: where they are from, in words.
      count, total: images of each corruption and severity, and how many there could be.
      labels: [count] int64.
      kinds: the names of the corruptions.
      images: (name, severity) -> [count, H, W, C] uint8.
    """

    origin: str
    count: int
    total: int
    labels: np.ndarray
    kinds: tuple[str, ...]
    images: Callable[[str, int], np.ndarray]


def drawn(test: Split, count: int) -> Corrupted:
    """The first `count` test images, corrupted by `wrn_jax.data.corruptions`."""
    images, labels = test.images[:count], test.labels[:count].astype(np.int64)
    kinds = tuple(corruptions.CORRUPTIONS)
    return Corrupted("drawn, key 0", count, len(test.labels), labels, kinds, functools.partial(draw, images))


_corrupt = jax.jit(corruptions.corrupt, static_argnames=("name", "severity"))


def draw(images: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Corrupts images [N, H, W, C] uint8 on a device; draws depend on an image's place, `name` and `severity` alone."""
    key = jax.random.key(0, impl="threefry2x32")
    key = jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(name.encode())), severity)
    blocks = []
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        block = np.pad(block, [(0, BLOCK - len(block)), (0, 0), (0, 0), (0, 0)])
        blocks.append(_corrupt(block, name=name, severity=severity, key=jax.random.fold_in(key, start)))
    return np.concatenate([np.asarray(block) for block in blocks])[: len(images)]


def stored(folder: Path, test: Split, count: int) -> Corrupted:
    """The first `count` images of every severity of a corrupted test set in the form of CIFAR-100-C.

    The folder holds NAME.npy for each corruption, [5 N, H, W, C] uint8 by rising severity, and labels.npy, [5 N] or [N]
    integers, for N test images in an order of their own. Hendrycks and Dietterich, 2019; https://zenodo.org/records/3555552.

    Raises:
      UserError: the folder does not hold such files, or not of the test set `test`.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such directory; should hold CIFAR-100-C: gaussian_noise.npy, labels.npy, ...")
    total = len(test.labels)
    paths = {name: folder / f"{name}.npy" for name in IN_BENCHMARK if (folder / f"{name}.npy").exists()}
    if not paths:
        raise UserError(f"{folder}: holds no corruption; should hold CIFAR-100-C: gaussian_noise.npy, labels.npy, ...")
    arrays = {name: _open_array(path) for name, path in paths.items()}
    for name, array in arrays.items():
        shape = (5 * total, *test.images.shape[1:])
        if array.shape != shape or array.dtype != np.uint8:
            expected = f"{shape} uint8"
            raise UserError(f"{paths[name]}: holds {array.shape} {array.dtype}; should hold {expected}")
    labels = _open_array(folder / "labels.npy")
    if labels.shape not in ((total,), (5 * total,)) or not np.issubdtype(labels.dtype, np.integer):
        expected = f"({5 * total},) or ({total},) integers"
        raise UserError(f"{folder / 'labels.npy'}: holds {labels.shape} {labels.dtype}; should hold {expected}")
    labels = np.array(labels[:total], np.int64)
    if not np.array_equal(np.sort(labels), np.sort(test.labels)):
        raise UserError(f"{folder / 'labels.npy'}: holds other labels than the test set; should be of the same data set")

    def images(name: str, severity: int) -> np.ndarray:
        return np.array(arrays[name][(severity - 1) * total :][:count])

    return Corrupted(f"{folder.name} at {folder}", count, total, labels[:count], tuple(arrays), images)


def _open_array(path: Path) -> np.ndarray:
    """A .npy file as an array, of which what is used is read."""
    try:
        return np.lib.format.open_memmap(path, mode="r")  # unlike `np.load`, it knows no format but this, and unpickles nothing
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a NumPy array ({reason(error)})") from None
