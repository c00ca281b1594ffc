"""Weights between the PyTorch layout of the stored vectors and this package's nested dictionaries."""

from pathlib import Path

import numpy as np

VECTORS = Path(__file__).parent / "vectors"
_LEAVES = {"scale": "weight", "bias": "bias", "kernel": "weight", "mean": "running_mean", "var": "running_var"}


def to_torch(tree):
    """{'block1.layer.0.conv1.weight': array in PyTorch's layout} of a nested dictionary of parameters or statistics."""
    flat = {}

    def walk(node, path):
        for name, child in node.items():
            if isinstance(child, dict):
                walk(child, (*path, name))
                continue
            array = np.asarray(child)
            if name == "kernel":
                array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            flat[".".join((*path, _LEAVES[name]))] = array

    walk(tree, ())
    return flat


def from_torch(like, value_of):
    """A nested dictionary shaped as `like`, its leaves `value_of(name, shape)` in PyTorch's names and shapes."""

    def build(node, path):
        made = {}
        for name, child in node.items():
            if isinstance(child, dict):
                made[name] = build(child, (*path, name))
                continue
            shape = tuple(child.shape)
            if name == "kernel":
                shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
            array = value_of(".".join((*path, _LEAVES[name])), shape)
            if name == "kernel":
                array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
            made[name] = np.ascontiguousarray(array, np.float32)
        return made

    return build(like, ())


def relative_error(found, expected):
    """Norm of the difference over the norm of what is expected."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)
