"""An image as [H, W] uint32, one word for the three bytes of a pixel.

So one gather fetches a pixel, rows fill the vectors of every processor, and what the channels have in common is computed once.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def pack(images: jax.Array) -> jax.Array:
    """[B, H, W, 3] uint8, RGB -> pixels [B, H, W] uint32: red in the lowest byte, then green and blue, 0 in the highest."""
    return join(*(images[..., channel] for channel in range(3)))


def unpack(pixels: jax.Array) -> jax.Array:
    """The images [B, H, W, 3] uint8 that `pack` made `pixels` of."""
    return jax.lax.bitcast_convert_type(pixels, jnp.uint8)[..., :3]


def join(red: jax.Array, green: jax.Array, blue: jax.Array) -> jax.Array:
    """Pixels from channels of one shape that hold whole numbers in 0..255, of any type."""
    red, green, blue = (channel.astype(jnp.uint32) for channel in (red, green, blue))
    return red | green << 8 | blue << 16


def split(pixels: jax.Array) -> list[jax.Array]:
    """Red, green and blue as float32."""
    return [(pixels >> shift & 255).astype(jnp.float32) for shift in (0, 8, 16)]


def if_needed(
    needed: jax.Array | bool, operation: Callable[..., jax.Array], unchanged: jax.Array, *parameters: jax.Array
) -> jax.Array:
    """operation(unchanged, *parameters); on a CPU `unchanged` where `needed`, a bool scalar, is false.

    The branch also keeps the CPU's compiler from drawing the operation into whatever reads its result, where it would be
    computed once for each reader and each channel: without it `augment` takes three times as long. A GPU would have to wait
    for the decision.
    """

    def decided(*arguments: jax.Array) -> jax.Array:
        return jax.lax.cond(needed, operation, lambda unchanged, *_: unchanged, *arguments)

    return jax.lax.platform_dependent(unchanged, *parameters, cpu=decided, default=operation)
