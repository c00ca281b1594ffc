"""Where the stored vectors lie, models and runs with the weights of the formula they were made with, and how far they agree."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tests.vectors.formula_weights import formula_weights
from wrn_jax.models import weight_layouts
from wrn_jax.training.checkpoints import Checkpoints
from wrn_jax.training.optimizer import LossScale, make_optimizer
from wrn_jax.training.records import CheckpointNotes
from wrn_jax.training.state import TrainState

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


def save_run(workdir, config, params, batch_stats):
    """A run of one epoch of ten updates with these weights, as `train` leaves it, without training."""
    state = TrainState(
        jnp.int32(10), *jax.tree.map(jnp.asarray, (params, batch_stats)), make_optimizer(config.optimizer).init(params),
        LossScale.create("float32"), jax.random.key(0),
    )  # fmt: skip
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(state, 10, 1, 0.3, CheckpointNotes(rollbacks=0))
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    return workdir
