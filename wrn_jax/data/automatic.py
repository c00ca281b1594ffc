"""TrivialAugment and RandAugment on the device: their 14 operations byte for byte as Pillow does them.

A batch is one program, with operation, strength and sign of each image as arrays. It does not do 14 operations: the geometric
ones are one gather, AutoContrast and Equalize look at a histogram, and the others are one blend, a threshold and a mask. What
an image is not asked for has neutral parameters, which change nothing.

TrivialAugment is Müller & Hutter 2021, arXiv:2103.10158; RandAugment is Cubuk et al. 2019, arXiv:1909.13719, with the
operations of the former, as its authors published both. `tests/vectors/automatic.npz.xz` holds results of Pillow 13.0.0.
"""

import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from wrn_jax.config.levels import Strengths
from wrn_jax.data.pixels import if_needed, join, split

OPERATIONS = (
    "Identity", "AutoContrast", "Equalize", "Rotate", "Solarize", "Color", "Posterize", "Contrast", "Brightness", "Sharpness",
    "ShearX", "ShearY", "TranslateX", "TranslateY",
)  # fmt: skip
"""The operations in the order of their indices."""

STRONGEST = 30


class _Ranges(NamedTuple):
    """What the operations do at strength 30; factors of a blend begin at `least_factor`."""

    rotate: int  # degrees
    shear: float
    translate: int  # pixels
    least_factor: float
    greatest_factor: float
    posterize: int  # bits


_RANGES = _Ranges(30, 0.3, 10, 0.1, 1.9, 4), _Ranges(135, 0.99, 32, 0.01, 2.0, 6)
"""The published "fixed_standard" and "wide_standard"."""


def automatic(pixels: jax.Array, key: jax.Array, strengths: Strengths) -> jax.Array:
    """One operation of TrivialAugment, then those of RandAugment, each with its probability; `pixels` [B, H, W] uint32.

    One round after the other, in a loop that has no rounds where neither is asked for.
    """
    batch = len(pixels)

    def one_round(index: jax.Array, pixels: jax.Array) -> jax.Array:
        # The same in all rounds.
        chosen, wide, further = jax.random.uniform(key, (3, batch))
        rounds = jnp.floor(strengths.randaugment_operations + further) * (chosen < strengths.randaugment_probability)
        # Other numbers in each. Round 0 is TrivialAugment's.
        drawn, touched, operation, sign = jax.random.uniform(jax.random.fold_in(key, index), (4, batch))
        touched = jnp.where(index == 0, touched < strengths.trivial_probability, index <= rounds)
        operation = jnp.where(touched, jnp.floor(len(OPERATIONS) * operation), 0).astype(jnp.int32)
        magnitude = jnp.clip(jnp.round(strengths.randaugment_magnitude), 0, STRONGEST)
        strength = jnp.where(index == 0, jnp.floor((STRONGEST + 1) * drawn), magnitude).astype(jnp.int32)
        return operate(pixels, operation, strength, sign < 0.5, wide < strengths.wide_ranges)

    first = jnp.where(strengths.trivial_probability > 0, 0, 1)
    last = jnp.where(strengths.randaugment_probability > 0, jnp.ceil(strengths.randaugment_operations), 0)
    return jax.lax.fori_loop(first, last.astype(jnp.int32) + 1, one_round, pixels)


def operate(pixels: jax.Array, operation: jax.Array, strength: jax.Array, negative: jax.Array, wide: jax.Array) -> jax.Array:
    """One operation on each image: `pixels` [B, H, W] uint32, the others [B].

    `operation` is an index of `OPERATIONS` and `strength` 0 to 30, both int32. `negative` and `wide` are bool: the sign, of the
    operations that have one, and the wider of the two ranges.
    """
    whole_numbers, factors = _parameters(*pixels.shape[1:])
    row = ((wide * len(OPERATIONS) + operation) * (STRONGEST + 1) + strength) * 2 + negative
    *matrix, threshold, mask = jnp.asarray(whole_numbers)[row].T
    factor = jnp.asarray(factors)[row]

    def is_one_of(*names: str) -> jax.Array:
        return jnp.isin(operation, jnp.array([OPERATIONS.index(name) for name in names]))

    is_moved = is_one_of("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")
    is_leveled, is_equalized = is_one_of("AutoContrast", "Equalize"), is_one_of("Equalize")
    is_blended = is_one_of("Solarize", "Color", "Posterize", "Contrast", "Brightness", "Sharpness")
    pixels = if_needed(is_moved.any(), _move, pixels, *matrix)
    pixels = jax.lax.platform_dependent(pixels, is_leveled, is_equalized, cpu=_level_a_few, default=_level)
    return if_needed(is_blended.any(), _change_colors, pixels, operation, factor, threshold, mask)


@functools.cache
def _parameters(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What each operation does, for both ranges, each strength and both signs, in the order of `row` above.

    Returns:
      int32 [R, 8]: the six numbers of `_move`, the threshold of Solarize, the mask of Posterize.
      float32 [R, 2]: the factor of the blend in two parts, as `_blend` takes it.
    """
    whole_numbers, factors = [], []
    for ranges, operation, strength, sign in itertools.product(_RANGES, OPERATIONS, range(STRONGEST + 1), (1, -1)):
        matrix = _matrix(operation, ranges, sign * strength, height, width)
        threshold = 256 - strength * 256 // STRONGEST if operation == "Solarize" else 256
        mask = 255 & -(1 << strength * ranges.posterize // STRONGEST) if operation == "Posterize" else 255
        whole_numbers.append([*_fixed_point(*matrix), threshold, mask])
        factor = ranges.least_factor + (ranges.greatest_factor - ranges.least_factor) * strength / STRONGEST
        factors.append(factor if operation in ("Color", "Contrast", "Brightness", "Sharpness") else 1.0)
    whole = np.array(factors, np.float32)
    upper = (whole.view(np.uint32) & 0xFFFFF000).view(np.float32)
    return np.array(whole_numbers, np.int32), np.stack([upper, whole - upper], axis=-1)


def _matrix(operation: str, ranges: _Ranges, strength: int, height: int, width: int) -> tuple[float, ...]:
    """(a, b, c, d, e, f): target pixel x, y reads ax + by + c, dx + ey + f; the sign is that of `strength`."""
    shift = int(strength * ranges.translate / STRONGEST)
    match operation:
        case "ShearX":
            return 1, strength * ranges.shear / STRONGEST, 0, 0, 1, 0
        case "ShearY":
            return 1, 0, 0, strength * ranges.shear / STRONGEST, 1, 0
        case "TranslateX":
            return 1, 0, shift, 0, 1, 0
        case "TranslateY":
            return 1, 0, 0, 0, 1, shift
        case "Rotate":
            # About the centre of the image, with the 15 digits that Pillow keeps.
            angle = -math.radians(int(strength * ranges.rotate / STRONGEST) % 360.0)
            cosine, sine, x, y = round(math.cos(angle), 15), round(math.sin(angle), 15), width / 2, height / 2
            return cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y
        case _:
            return 1, 0, 0, 0, 1, 0


def _fixed_point(a: float, b: float, c: float, d: float, e: float, f: float) -> list[int]:
    """The matrix as it acts on the centres of pixels, in units of 2**-16."""
    return [math.floor(number * 65536 + 0.5) for number in (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)]


def _move(pixels: jax.Array, *matrix: jax.Array) -> jax.Array:
    """An affine map that takes the nearest pixel, black outside; six numbers of `_fixed_point`, each [B] int32."""
    batch, height, width = pixels.shape
    a, b, c, d, e, f = (number[:, None, None] for number in matrix)
    x, y = jnp.arange(width, dtype=jnp.int32)[None, None, :], jnp.arange(height, dtype=jnp.int32)[None, :, None]
    source_x, source_y = a * x + b * y + c >> 16, d * x + e * y + f >> 16
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    index = jnp.where(inside, source_y * width + source_x, 0).reshape(batch, -1)
    moved = jnp.take_along_axis(pixels.reshape(batch, -1), index, axis=1, mode="promise_in_bounds").reshape(pixels.shape)
    return jnp.where(inside, moved, jnp.uint32(0))


def _level_a_few(pixels: jax.Array, is_touched: jax.Array, is_equalized: jax.Array) -> jax.Array:
    """As `_level`, one image of each 16 at a time, as long as there are some to change: counting is slow on a CPU."""
    batch, height, width = pixels.shape
    size = math.gcd(batch, 16)
    touched = is_touched.reshape(-1, size)
    turn = jnp.where(touched, jnp.cumsum(touched, axis=1), 0)  # the round in which an image is changed, from 1

    def one_round(index: jax.Array, groups: jax.Array) -> jax.Array:
        now = turn == index
        chosen = jnp.take_along_axis(groups, now.argmax(1)[:, None, None, None], axis=1, mode="promise_in_bounds")[:, 0]
        changed = _level(chosen, now.any(1), (now & is_equalized.reshape(-1, size)).any(1))
        return jnp.where(now[:, :, None, None], changed[:, None], groups)

    groups = pixels.reshape(-1, size, height, width)
    return jax.lax.fori_loop(1, turn.max() + 1, one_round, groups).reshape(pixels.shape)


def _level(pixels: jax.Array, is_touched: jax.Array, is_equalized: jax.Array) -> jax.Array:
    """Equalize, or else AutoContrast, of the images that `is_touched`; both [B] bool."""
    flat = pixels.reshape(len(pixels), -1)
    levels = [(flat >> shift & 255).astype(jnp.int32) for shift in (0, 8, 16)]
    unchanged = jnp.broadcast_to(jnp.arange(256, dtype=jnp.uint32)[None, None], (len(pixels), 3, 256))
    tables = if_needed(is_touched.any(), _tables, unchanged, jnp.stack(levels, axis=1), is_equalized)
    changed = [jnp.take_along_axis(tables[:, c], level, axis=1, mode="promise_in_bounds") for c, level in enumerate(levels)]
    return jnp.where(is_touched[:, None, None], join(*changed).reshape(pixels.shape), pixels)


def _tables(unchanged: jax.Array, levels: jax.Array, is_equalized: jax.Array) -> jax.Array:
    """What each of 256 levels becomes, [B, 3, 256] uint32 as `unchanged`; `levels` [B, 3, H * W] int32."""
    batch, _, count = levels.shape
    rows = jnp.arange(batch * 3, dtype=jnp.int32)[:, None]
    histogram = jnp.zeros((batch * 3, 256), jnp.int32)
    histogram = histogram.at[rows, levels.reshape(batch * 3, -1)].add(1, mode="promise_in_bounds")
    below = _sum_of_those_before(histogram).reshape(batch, 3, 256)
    level = unchanged.astype(jnp.float32)

    # Equalize: the pixels with lower levels, in steps of a 255th of the pixels below the highest level.
    step = jnp.where(below < count, below, 0).max(2, keepdims=True) // 255
    # In this division as in the next, the half keeps a rounding from crossing a whole number.
    equalized = jnp.minimum(jnp.floor((step // 2 + below + 0.5) / jnp.maximum(step, 1)), 255)
    equalized = jnp.where(step > 0, equalized, level)

    # AutoContrast: from lowest..highest to 0..255.
    lowest, highest = ((below <= most).sum(2, keepdims=True) - 1 for most in (0, count - 1))
    span, height = (highest - lowest).astype(jnp.float32), (level - lowest) * 255
    stretched = jnp.floor((height + 0.5) / jnp.maximum(span, 1))
    shortfall = jnp.asarray(_shortfalls())[lowest, highest] >> (stretched.astype(jnp.uint32) & 31) & 1
    stretched = jnp.where(stretched * span == height, stretched - shortfall, stretched)
    stretched = jnp.where(span > 0, stretched, level)
    return jnp.where(is_equalized[:, None, None], equalized, stretched).astype(jnp.uint32)


def _sum_of_those_before(counts: jax.Array) -> jax.Array:
    """For each entry of a row the sum of the entries before it; `counts` [N, 256] int32, below 2**24."""
    earlier = jnp.triu(jnp.ones((16, 16), jnp.float32), 1)
    groups = counts.reshape(-1, 16, 16).astype(jnp.float32)
    within = jnp.matmul(groups, earlier, precision="highest")
    before = jnp.matmul(groups.sum(2), earlier, precision="highest")
    return (within + before[:, :, None]).reshape(counts.shape).astype(jnp.int32)


@functools.cache
def _shortfalls() -> np.ndarray:
    """Where AutoContrast comes out one level lower than it would without rounding: bits by lowest and highest level.

    Pillow computes level * scale - lowest * scale in float64 and drops the fraction. Where the result would be a whole number
    q, it may come to lie just below it. Then bit q % 32 is set in [lowest, highest] uint32; the q of a pair do not collide.
    """
    bits = np.zeros((256, 256), np.uint32)
    level = np.arange(256)[None, :]
    for low in range(255):
        high = np.arange(low + 1, 256)[:, None]
        scale = 255.0 / (high - low)
        exact, rest = np.divmod((level - low) * 255, high - low)
        inside = (level > low) & (level <= high)
        is_short = inside & (rest == 0) & (np.trunc(level * scale + -low * scale) < exact)
        bits[low, low + 1 :] = (is_short * (1 << exact % 32)).sum(1)
    return bits


def _change_colors(
    pixels: jax.Array, operation: jax.Array, factor: jax.Array, threshold: jax.Array, mask: jax.Array
) -> jax.Array:
    """The blends, then Solarize and Posterize; parameters as in `_parameters`, [B] and [B, 2]."""
    is_color, is_sharpness, is_contrast = (
        (operation == OPERATIONS.index(name))[:, None, None] for name in ("Color", "Sharpness", "Contrast")
    )
    grey, count = _grey(pixels), pixels[0].size
    mean = (2 * grey.sum((1, 2), keepdims=True) + count) // (2 * count)  # rounded
    plain = jnp.where(is_color, grey, jnp.where(is_contrast, mean, 0)).astype(jnp.float32)

    def change(level: jax.Array, smooth: jax.Array) -> jax.Array:
        blended = _blend(jnp.where(is_sharpness, smooth, plain), level, factor)
        return jnp.where(blended >= threshold[:, None, None], 255 - blended, blended)

    changed = join(*map(change, split(pixels), split(_smooth(pixels))))
    return changed & (mask * 0x010101).astype(jnp.uint32)[:, None, None]


def _grey(pixels: jax.Array) -> jax.Array:
    """[B, H, W] int32 in 0..255: Pillow's conversion to "L"."""
    red, green, blue = (pixels >> shift & 255 for shift in (0, 8, 16))
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000 >> 16).astype(jnp.int32)


def _smooth(pixels: jax.Array) -> jax.Array:
    """Pillow's SMOOTH: the 3 x 3 neighbours, the pixel itself five times, over 13, rounded; the border stays."""
    batch, height, width = pixels.shape
    # Neighbours at fixed distances in the row of all pixels: whole vectors. What wraps round lies on the border.
    flat = jnp.pad(pixels.reshape(batch, -1), ((0, 0), (width + 1, width + 1)))

    def total(shift: int, mask: int) -> jax.Array:
        def read(offset: int) -> jax.Array:
            return flat[:, offset : offset + height * width] >> shift & mask

        return 4 * read(width + 1) + sum(read(row * width + column) for row in range(3) for column in range(3))

    # Red and blue share a word, as a sum is at most 13 * 255. The product and shift are the division by 13, rounded.
    red_blue, green = total(0, 0xFF00FF), total(8, 255)
    smooth = join(*((2 * lane + 13) * 10083 >> 18 for lane in (red_blue & 0xFFFF, green, red_blue >> 16)))
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    inside = (rows % (height - 1) > 0) & (columns % (width - 1) > 0)
    return jnp.where(inside[None], smooth.reshape(pixels.shape), pixels)


def _blend(base: jax.Array, level: jax.Array, factor: jax.Array) -> jax.Array:
    """base + factor * (level - base), clipped to 0..255 and rounded down, in float32 as Pillow has it.

    `factor`, [B, 2], is the sum of two numbers of 12 bits, whose products are exact: a compiler that fuses a product with a
    sum, and so leaves a rounding out, gets the same.
    """
    upper, lower = (part[:, None, None] for part in factor.T)
    difference = level - base
    return jnp.floor(jnp.clip(base + (upper * difference + lower * difference), 0, 255))
