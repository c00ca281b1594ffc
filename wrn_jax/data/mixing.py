"""Mixup and CutMix: images of a batch mixed in pairs."""

import jax
import jax.numpy as jnp


def mixup_weight(key: jax.Array, alpha: jax.Array) -> jax.Array:
    """Weight of the first image of each pair: one draw from Beta(alpha, alpha) for the whole batch; 1 where alpha is 0.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018. `alpha`: float32 scalar >= 0, traced. Float32 scalar.
    """
    safe = jnp.maximum(alpha, 1e-3)  # Beta(0, 0) is NaN, and a NaN survives the selection in gradients
    return jnp.where(alpha > 0, jax.random.beta(key, safe, safe), 1.0).astype(jnp.float32)


def cutmix_box(key: jax.Array, alpha: jax.Array, height: int, width: int) -> jax.Array:
    """One box for the whole batch, [height, width] bool: true where a pixel is the partner's.

    Yun et al., "CutMix", 2019, and their code: the share of the area is a draw from Beta(alpha, alpha), the sides are rounded
    down, the centre is any pixel, and what lies outside the image is cut off, so that boxes are often smaller than drawn.

    Args:
      key: random key.
      alpha: float32 scalar > 0, traced; 0 counts as 0.001.
      height, width: of the images, in pixels.
    """
    share_key, y_key, x_key = jax.random.split(key, 3)
    safe = jnp.maximum(alpha, 1e-3)
    return box_of(
        jax.random.beta(share_key, safe, safe),
        jax.random.randint(y_key, (), 0, height),
        jax.random.randint(x_key, (), 0, width),
        height,
        width,
    )


def box_of(share: jax.Array, y: jax.Array, x: jax.Array, height: int, width: int) -> jax.Array:
    """The box of `cutmix_box` about the pixel (`y`, `x`) with `share` of the area, before it is cut off."""

    def inside(center: jax.Array, size: int) -> jax.Array:
        half = jnp.floor(size * jnp.sqrt(share)).astype(jnp.int32) // 2
        place = jnp.arange(size)
        return (place >= center - half) & (place < center + half)

    return inside(y, height)[:, None] & inside(x, width)[None, :]


def mix(images: jax.Array, partner: jax.Array, weight: jax.Array) -> jax.Array:
    """`weight * images + (1 - weight) * images[partner]` for images [B, ...] (any type) and int32 partner [B].

    `weight` is a float32 scalar, or one for each pixel, [1, H, W, 1].
    """
    return weight * images + (1.0 - weight) * images[partner]
