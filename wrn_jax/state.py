"""The network of a configuration, and everything that a training step changes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from wrn_jax.config import Model
from wrn_jax.model import WideResNet
from wrn_jax.optimizer import LossScale


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
    """

    step: jax.Array
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: optax.OptState
    loss_scale: LossScale
    key: jax.Array


def split(model: WideResNet) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """The network as (definition, parameters, running statistics), the latter two nested dictionaries of arrays."""
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graphdef, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


class Network:
    """The network of a configuration before it has values.

    Args:
      config: depth, width, normalisation groups, what is recomputed.
      num_classes: outputs where the configuration leaves them open.
      dtype: compute type, "float32", "bfloat16" or "float16".
      batch_is_split: whether training splits the batch over several devices.

    Attributes:
      graphdef: the definition, for `nnx.merge`.
      params, batch_stats: nested dictionaries of `jax.ShapeDtypeStruct`.
      dtype: the compute type.
    """

    def __init__(self, config: Model, num_classes: int, dtype: str, batch_is_split: bool = False):
        self._build = lambda key: WideResNet(
            config.depth,
            config.widen_factor,
            config.num_classes or num_classes,
            dtype=jnp.dtype(dtype),
            batch_norm_groups=config.batch_norm_groups,
            recompute=config.recompute == "blocks",
            batch_is_split=batch_is_split,
            rngs=nnx.Rngs(params=key),
        )
        self.dtype = dtype
        self.graphdef, self.params, self.batch_stats = split(nnx.eval_shape(lambda: self._build(jax.random.key(0))))

    @property
    def num_parameters(self) -> int:
        """Number of parameters, running statistics not counted."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def create_state(self, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
        """The state before the first update; `key` is the run's random key. Jittable."""
        # Streams 0 and 1 of the key are the order of the data and the steps.
        _, params, stats = split(self._build(jax.random.fold_in(key, 2)))
        return TrainState(
            step=jnp.int32(0),
            params=params,
            batch_stats=stats,
            opt_state=optimizer.init(params),
            loss_scale=LossScale.create(self.dtype),
            key=key,
        )
