"""What a recipe costs: operations and memory, counted from shapes alone."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from wrn_jax.models.network import Network
from wrn_jax.planning import hlo
from wrn_jax.training.setup import Setup


def run_operations(setup: Setup) -> int:
    """Operations of all updates of a run: the backward pass counted as twice the forward pass, two gradients as twice one."""
    timeline = setup.timeline
    images = (timeline.steps + timeline.sharpness_aware_steps) * setup.config.recipe.batch_size
    return 3 * forward_operations(setup.network, setup.dataset.image_shape) * images


def state_bytes(state: Any) -> int:
    """Bytes of the arrays of a state, which may be `jax.ShapeDtypeStruct`s."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


def forward_operations(network: Network, image_shape: tuple[int, ...]) -> int:
    """Operations of one image's forward pass in convolutions and matrix products, a multiplication and an addition each.

    Counted from the lowered program, so it is right for every depth, width and number of classes.
    """

    def forward(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        return nnx.merge(network.graphdef, params, stats)(images)

    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    lowered = jax.jit(forward).trace(network.params, network.batch_stats, image).lower(lowering_platforms=("cpu",))
    return sum(times * work.matrix.total() for work, times in hlo.parse(lowered.as_text("hlo")).kernels())
