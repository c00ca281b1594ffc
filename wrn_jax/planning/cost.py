"""What a recipe costs: operations and memory, counted from shapes alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wrn_jax.models.network import Network
from wrn_jax.training.setup import Setup


def run_operations(setup: Setup) -> int:
    """Operations of all updates of a run, the backward pass counted as twice the forward pass."""
    images = setup.timeline.steps * setup.config.recipe.batch_size
    return 3 * forward_operations(setup.network, setup.dataset.image_shape) * images


def state_bytes(state: Any) -> int:
    """Bytes of the arrays of a state, which may be `jax.ShapeDtypeStruct`s."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(state))


def _bytes(leaf: Any) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.eval_shape(jax.random.key_data, leaf).size * 4
    return leaf.size * leaf.dtype.itemsize


def forward_operations(network: Network, image_shape: tuple[int, ...]) -> int:
    """Operations of one image's forward pass in convolutions and matrix products, a multiplication and an addition each.

    Counted from the traced program, so it is right for every depth, width and number of classes.
    """

    def forward(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        return nnx.merge(network.graphdef, params, stats)(images)

    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return _count(jax.make_jaxpr(forward)(network.params, network.batch_stats, image).jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        # The ways that a platform may take stand beside each other; the plain one has the most operations.
        total += max((_count(branch.jaxpr) for branch in equation.params.get("branches", ())), default=0)
        for parameter in equation.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                total += _count(inner)
        shapes = [variable.aval.shape for variable in equation.invars]
        output = equation.outvars[0].aval.shape
        if equation.primitive.name == "conv_general_dilated":
            total += 2 * int(np.prod(output)) * int(np.prod(shapes[1][:-1]) if len(shapes[1]) else 1)
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * int(np.prod(output)) * int(np.prod([shapes[0][axis] for axis in contracted]))
    return total
