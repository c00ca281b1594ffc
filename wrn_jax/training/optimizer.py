"""The Optax chain, and dynamic loss scaling for float16."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wrn_jax.config import Optimizer


def with_traced(name: str, make: Callable[[Any], optax.GradientTransformation]) -> optax.GradientTransformationExtraArgs:
    """`make(value)`, by the value that is passed to `update` as the keyword `name`.

    Optax's own schedules count their updates in the optimiser state. That would be a second clock, which drifts from the
    state's as soon as an update is skipped; here the values come from the one timeline.
    """

    def update(updates: Any, state: Any, params: Any = None, **values: Any) -> tuple[Any, Any]:
        return make(values[name]).update(updates, state, params)

    return optax.GradientTransformationExtraArgs(make(0.0).init, update)


def add_traced_weight_decay(kernels_only: bool) -> optax.GradientTransformationExtraArgs:
    """As `optax.add_decayed_weights`, by the `weight_decay` that is passed to `update`; or of leaves named "kernel" alone."""

    def update(updates: Any, state: Any, params: Any = None, **values: Any) -> tuple[Any, Any]:
        def decayed(path: Any, update: jax.Array, param: jax.Array) -> jax.Array:
            skipped = kernels_only and path[-1].key != "kernel"
            return update if skipped else update + values["weight_decay"] * param

        return jax.tree_util.tree_map_with_path(decayed, updates, params), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def make_optimizer(config: Optimizer) -> optax.GradientTransformationExtraArgs:
    """Stochastic gradient descent in the order of the reference: clip, L2, momentum, learning rate.

    The raw gradients are clipped to a global norm first, then the L2 term is added, so that clipping never weakens the decay.
    `update` takes the keywords `learning_rate`, `momentum` and `weight_decay`, float32 scalars.
    """
    clip = optax.identity() if config.clip_norm is None else optax.clip_by_global_norm(config.clip_norm)
    return optax.chain(
        clip,
        add_traced_weight_decay(config.decay == "kernels"),
        with_traced("momentum", functools.partial(optax.trace, nesterov=config.nesterov)),
        with_traced("learning_rate", optax.scale_by_learning_rate),
    )


SCALE_INITIAL = 65536.0
GROWTH_INTERVAL = 2000


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossScale:
    """Dynamic loss scaling (Micikevicius et al., "Mixed Precision Training", 2018; the constants are PyTorch's).

    Attributes:
      scale: float32 scalar by which the loss is multiplied; 1 where the compute type needs none.
      good_steps: int32 scalar, updates since the scale last changed.
    """

    scale: jax.Array
    good_steps: jax.Array

    @classmethod
    def create(cls, dtype: str) -> "LossScale":
        """The initial scale for a compute type."""
        return cls(jnp.float32(SCALE_INITIAL if dtype == "float16" else 1.0), jnp.int32(0))

    def adjust(self, finite: jax.Array) -> "LossScale":
        """Halved after a non-finite update, doubled after `GROWTH_INTERVAL` finite ones in a row. `finite`: bool scalar."""
        grow = finite & (self.good_steps + 1 >= GROWTH_INTERVAL)
        factor = jnp.where(finite, jnp.where(grow, 2.0, 1.0), 0.5)
        good_steps = jnp.where(finite & ~grow, self.good_steps + 1, 0)
        return LossScale(self.scale * factor, good_steps.astype(jnp.int32))
