"""Mixup: images of a batch mixed in pairs."""

import jax
import jax.numpy as jnp


def mixup_weight(key: jax.Array, alpha: jax.Array) -> jax.Array:
    """Weight of the first image of each pair: one draw from Beta(alpha, alpha) for the whole batch; 1 where alpha is 0.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018. `alpha`: float32 scalar >= 0, traced. Float32 scalar.
    """
    safe = jnp.maximum(alpha, 1e-3)  # Beta(0, 0) is NaN, and a NaN survives the selection in gradients
    return jnp.where(alpha > 0, jax.random.beta(key, safe, safe), 1.0).astype(jnp.float32)


def mix(images: jax.Array, partner: jax.Array, weight: jax.Array) -> jax.Array:
    """`weight * images + (1 - weight) * images[partner]` for images [B, ...] (any type) and int32 partner [B]."""
    return weight * images + (1.0 - weight) * images[partner]
