"""Sharpness-aware minimisation: where the gradient is taken instead of at the weights themselves.

Foret et al., "Sharpness-Aware Minimization", 2021; adaptive: Kwon et al., "ASAM", 2021.

What the papers leave open is settled so. Both passes see the same images, dropout masks and labels. The running statistics of
BatchNorm, the loss and the accuracy of a step are those of the first pass, at the weights themselves. L2 is the optimiser's
affair: it is no part of the gradient that perturbs, and acts at the weights themselves. The clip acts on the average of the
second gradients. With groups, each group of images is normalised, perturbed and differentiated by itself, and has its own
dropout masks.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

SCALED = ("kernel", "scale")
"""Names of the parameters whose perturbation the adaptive variant scales by their size: what PyTorch calls weight."""


def perturbed(params: Any, gradients: Any, rho: jax.Array, adaptive: bool) -> Any:
    """The parameters moved by `rho` up the gradient of the loss.

    Args:
      params, gradients: nested dictionaries of float32 arrays.
      rho: length of the step, float32 scalar, traced; in the adaptive variant in units of the parameters' sizes.
      adaptive: whether the step of each kernel and scale is stretched by the size of its entries (ASAM with eta 0).
    """

    def size(path: Any, param: jax.Array) -> jax.Array | float:
        return jnp.abs(param) if adaptive and path[-1].key in SCALED else 1.0

    sizes = jax.tree_util.tree_map_with_path(size, params)
    scaled = jax.tree.map(jnp.multiply, sizes, gradients)
    length = rho / jnp.maximum(optax.tree.norm(scaled), 1e-12)
    return jax.tree.map(lambda param, size, part: param + length * size * part, params, sizes, scaled)
