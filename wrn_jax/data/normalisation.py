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
        """Normalises [B, H, W, 3] images in 0..255 (any type) to float32: (images / 255 - mean) / std."""
        mean, std = (jnp.array(numbers)[None, None, None, :] for numbers in (self.mean, self.std))
        return (images.astype(jnp.float32) / 255 - mean) / std


def in_words(mean: Sequence[float], std: Sequence[float]) -> str:
    """As in "mean 0.5071 0.4865 0.4409, std 0.2673 0.2564 0.2762"."""
    channels = [" ".join(f"{number:.4f}" for number in numbers) for numbers in (mean, std)]
    return f"mean {channels[0]}, std {channels[1]}"
