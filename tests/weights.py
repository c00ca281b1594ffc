"""Where the stored vectors lie, models with the weights of the formula they were made with, and how far they agree."""

from pathlib import Path

import numpy as np

from tests.vectors.formula_weights import formula_weights
from wrn_jax.models import weight_layouts

VECTORS = Path(__file__).parent / "vectors"


def formula_model(depth, widen_factor, num_classes):
    """(parameters, running statistics) of a network with the weights of the formula."""
    shapes = weight_layouts.shapes(depth, widen_factor, num_classes)
    weights = weight_layouts.from_torch({name: formula_weights(name, shape) for name, shape in shapes.items()}, "formula")
    return weights.params, weights.batch_stats


def relative_error(found, expected):
    """Norm of the difference over the norm of what is expected."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)
