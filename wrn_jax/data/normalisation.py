"""Normalisation of images per channel."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel of images in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalises [B, H, W, 3] images in 0..255 (any type) to float32."""
        return normalize(images.astype(jnp.float32), jnp.array(self.mean), jnp.array(self.std))


def normalize(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """(images / 255 - mean) / std; `images` [B, H, W, 3] in 0..255, `mean` and `std` [3] as fractions of 255."""
    return (images / 255 - mean[None, None, None, :]) / std[None, None, None, :]


def in_words(mean: Sequence[float], std: Sequence[float]) -> str:
    """As in "mean 0.5071 0.4865 0.4409, std 0.2673 0.2564 0.2762"."""
    channels = [" ".join(f"{number:.4f}" for number in numbers) for numbers in (mean, std)]
    return f"mean {channels[0]}, std {channels[1]}"
