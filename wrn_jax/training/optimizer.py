"""The Optax chain, and dynamic loss scaling for float16."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wrn_jax.config import Optimizer


def scale_by_traced_learning_rate() -> optax.GradientTransformationExtraArgs:
    """Multiplies by minus the `learning_rate` that is passed to `update`.

    Optax's own schedules count their updates in the optimiser state. That would be a second clock, which drifts from the
    state's as soon as an update is skipped; here the rate comes from the one timeline.
    """

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        del params
        return jax.tree.map(lambda update: -extra_args["learning_rate"] * update, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def add_traced_weight_decay(kernels_only: bool) -> optax.GradientTransformationExtraArgs:
    """As `optax.add_decayed_weights`, by the `weight_decay` that is passed to `update`; or of leaves named "kernel" alone."""

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        def decayed(path: Any, update: jax.Array, param: jax.Array) -> jax.Array:
            skipped = kernels_only and path[-1].key != "kernel"
            return update if skipped else update + extra_args["weight_decay"] * param

        return jax.tree_util.tree_map_with_path(decayed, updates, params), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def trace_by_traced_momentum(nesterov: bool) -> optax.GradientTransformationExtraArgs:
    """As `optax.trace`, by the `momentum` that is passed to `update`."""

    def init(params: Any) -> optax.TraceState:
        return optax.TraceState(trace=optax.tree.zeros_like(params))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        del params
        momentum = extra_args["momentum"]
        trace = jax.tree.map(lambda update, trace: update + momentum * trace, updates, state.trace)
        ahead = jax.tree.map(lambda update, trace: update + momentum * trace, updates, trace) if nesterov else trace
        return ahead, optax.TraceState(trace=trace)

    return optax.GradientTransformationExtraArgs(init, update)


def make_optimizer(config: Optimizer) -> optax.GradientTransformationExtraArgs:
    """Stochastic gradient descent in the order of the reference: clip, L2, momentum, learning rate.

    The raw gradients are clipped to a global norm first, then the L2 term is added, so that clipping never weakens the decay.
    `update` takes the keywords `learning_rate`, `momentum` and `weight_decay`, float32 scalars.
    """
    clip = optax.identity() if config.clip_norm is None else optax.clip_by_global_norm(config.clip_norm)
    return optax.chain(
        clip,
        add_traced_weight_decay(config.decay == "kernels"),
        trace_by_traced_momentum(config.nesterov),
        scale_by_traced_learning_rate(),
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
