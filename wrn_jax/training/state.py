"""Everything that a training step changes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wrn_jax.models.network import Network, split
from wrn_jax.training import average
from wrn_jax.training.optimizer import LossScale

ORDER, STEPS, INITIALISATION = range(3)
"""What is folded into the run's key first: for the order of the data, for what the steps draw, for the initial weights."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state of a run; with configuration and data it determines all that follows.

    Attributes:
      step: int32 scalar, number of finished updates.
      params: parameters, nested dictionaries of float32 arrays.
      batch_stats: running means and variances, nested dictionaries of float32 arrays.
      opt_state: state of the Optax chain.
      loss_scale: dynamic loss scale; constant 1 unless computing in float16.
      key: the run's random key; never changes, randomness is derived from it and the step.
      average: see `average.init`; None in a run whose recipe has no average.
    """

    step: jax.Array
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: optax.OptState
    loss_scale: LossScale
    key: jax.Array
    average: dict[str, Any] | None = None


def create_state(
    network: Network, optimizer: optax.GradientTransformation, key: jax.Array, averaged: bool = False
) -> TrainState:
    """The state before the first update, with an average if `averaged`; `key` is the run's random key. Jittable."""
    _, params, stats = split(network.build(jax.random.fold_in(key, INITIALISATION)))
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=stats,
        opt_state=optimizer.init(params),
        loss_scale=LossScale.create(network.dtype),
        key=key,
        average=average.init(params, stats) if averaged else None,
    )
