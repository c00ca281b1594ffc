"""Image augmentation on the device: automatic operations, crop, flip, affine warp, cutout, changes of colour.

The reference pipeline works on uint8 images with OpenCV and Albumentations and rounds after every operation. So does
this module, each operation the way its model rounds (to nearest or down, as each docstring says): it can meet the
reference to within one level only this way. Between the operations an image is [H, W] uint32 (`data/pixels.py`). The
operations of TrivialAugment and RandAugment, which come first, have a file of their own, `data/automatic.py`.

Every parameter is an array, so strengths can move during a run without a recompile. An operation that is not applied to
an image gets its neutral parameters and returns that image unchanged, bit for bit.

`tests/vectors/augment.npz` holds results of OpenCV 5.0.0 and Albumentations 2.0.8; the tests say how closely they are
met.
"""

import functools
from collections.abc import Collection, Iterator

import jax
import jax.numpy as jnp

from wrn_jax.config.levels import Strengths
from wrn_jax.data.automatic import automatic
from wrn_jax.data.pixels import if_needed, join, pack, split, unpack


def flip(pixels: jax.Array, flip: jax.Array) -> jax.Array:
    """Mirrors left and right the images whose entry in `flip`, [B] bool, is true. As cv2.flip(image, 1)."""
    return jnp.where(flip[:, None, None], pixels[:, :, ::-1], pixels)


def crop(pixels: jax.Array, shift_x: jax.Array, shift_y: jax.Array, reflects: jax.Array) -> jax.Array:
    """The window of the image's own size that lies `shift_x` pixels to the right and `shift_y` down; each [B].

    Shifts are whole and less than the side. Outside the image lies its mirror image (without the border pixels once more) where
    `reflects`, [B] bool, is true, and black elsewhere. As torchvision's Pad, "reflect" or "constant", and a crop.
    """
    batch, height, width = pixels.shape
    x = jnp.arange(width, dtype=jnp.float32)[None, :] + shift_x[:, None]
    y = jnp.arange(height, dtype=jnp.float32)[None, :] + shift_y[:, None]
    index = _reflect(y, height)[:, :, None] * width + _reflect(x, width)[:, None, :]
    flat = pixels.reshape(batch, -1)
    moved = jnp.take_along_axis(flat, index.astype(jnp.int32).reshape(batch, -1), axis=1, mode="clip").reshape(pixels.shape)
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    return jnp.where(inside | reflects[:, None, None], moved, jnp.uint32(0))


def affine(pixels: jax.Array, shift_x: jax.Array, shift_y: jax.Array, scale: jax.Array, angle: jax.Array) -> jax.Array:
    """Rotates and scales about the centre ((W-1)/2, (H-1)/2), then shifts: one bilinear warp, rounded to nearest.

    H and W must be at least 2. `shift_x` (right) and `shift_y` (down) are in pixels, `scale` is a factor (> 1 enlarges),
    `angle` is in degrees counter-clockwise; each [B].

    As cv2.warpAffine with INTER_LINEAR, BORDER_REFLECT_101 and the matrix of cv2.getRotationMatrix2D plus the shift, in
    OpenCV 5, which keeps source coordinates and weights in float32. OpenCV 4 rounds coordinates to 1/32 of a pixel
    first: on pure noise its results differ from these, as from those of OpenCV 5, by 0.8 levels on average.
    """
    batch, height, width = pixels.shape
    x, y = _source_coordinates(shift_x, shift_y, scale, angle, height, width)
    # The last column and row are reached from the pixel before them with weight 1, so all four neighbours always exist.
    # The lower bound is for a division in _reflect that some device may round up: x could then be just below 0.
    left, top = jnp.clip(jnp.floor(x), 0, width - 2), jnp.clip(jnp.floor(y), 0, height - 2)
    x_weight, y_weight = x - left, y - top
    index = (top * width + left).astype(jnp.int32).reshape(batch, -1)
    flat = pixels.reshape(batch, -1)
    reach = width + 1  # from the upper left neighbour to the lower right one

    def read(offset: int) -> list[jax.Array]:
        # All four share one index, which the CPU's compiler then computes once.
        taps = jnp.take_along_axis(flat[:, offset : offset + height * width - reach], index, axis=1, mode="clip")
        return split(taps.reshape(pixels.shape))

    def blend(top_left: jax.Array, top_right: jax.Array, bottom_left: jax.Array, bottom_right: jax.Array) -> jax.Array:
        upper = top_left + (top_right - top_left) * x_weight
        lower = bottom_left + (bottom_right - bottom_left) * x_weight
        return jnp.round(upper + (lower - upper) * y_weight)

    return join(*map(blend, read(0), read(1), read(width), read(reach)))


def _source_coordinates(
    shift_x: jax.Array, shift_y: jax.Array, scale: jax.Array, angle: jax.Array, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """Where each target pixel reads: x in 0..W-1 and y in 0..H-1, both [B, H, W] float32, reflections folded in."""
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    radians = jnp.deg2rad(angle)
    cosine, sine = (jnp.cos(radians) / scale)[:, None, None], (jnp.sin(radians) / scale)[:, None, None]
    x = (jnp.arange(width, dtype=jnp.float32) - center_x)[None, None, :] - shift_x[:, None, None]
    y = (jnp.arange(height, dtype=jnp.float32) - center_y)[None, :, None] - shift_y[:, None, None]
    source_x = cosine * x - sine * y + center_x
    source_y = sine * x + cosine * y + center_y
    return _reflect(source_x, width), _reflect(source_y, height)


def _reflect(coordinate: jax.Array, size: int) -> jax.Array:
    """Folds a coordinate into 0..size-1 by mirroring at both end pixels (BORDER_REFLECT_101).

    Linear interpolation commutes with this mirroring, so one fold replaces a border rule for each of the taps.
    """
    last = size - 1
    coordinate = jnp.abs(coordinate)
    coordinate = coordinate - 2 * last * jnp.floor(coordinate / (2 * last))
    return last - jnp.abs(last - coordinate)


def cutout(
    pixels: jax.Array, top: jax.Array, left: jax.Array, height: jax.Array, width: jax.Array, color: int = 0
) -> jax.Array:
    """Sets to `color`, a pixel, the rectangle whose upper left pixel is in row `top`, column `left`; in pixels, each [B].

    Whole numbers are expected, also below 0; side 0 leaves the image as it is. Cutout of DeVries & Taylor 2017,
    arXiv:1708.04552, where the rectangle is a square; with black as Albumentations' CoarseDropout with one hole and fill 0.
    """
    y = jnp.arange(pixels.shape[1], dtype=jnp.float32)[None, :] - top[:, None]
    x = jnp.arange(pixels.shape[2], dtype=jnp.float32)[None, :] - left[:, None]
    in_rows = (y >= 0) & (y < height[:, None])
    in_columns = (x >= 0) & (x < width[:, None])
    return jnp.where(in_rows[:, :, None] & in_columns[:, None, :], jnp.uint32(color), pixels)


def brightness_contrast(pixels: jax.Array, brightness: jax.Array, contrast: jax.Array) -> jax.Array:
    """Level * (1 + contrast) + 255 * brightness, clipped to 0..255 and rounded down; both parameters [B].

    As Albumentations' RandomBrightnessContrast(brightness_by_max=True), whose uint8 table drops the fraction.
    """
    factor, offset = 1 + contrast[:, None, None], 255 * brightness[:, None, None]
    return join(*(jnp.floor(jnp.clip(channel * factor + offset, 0, 255)) for channel in split(pixels)))


def hue_saturation_value(pixels: jax.Array, hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    """Shifts hue (turning, 180 is the full circle), saturation and value (both clipped to 0..255); each parameter [B].

    As Albumentations' HueSaturationValue: through OpenCV's uint8 HSV and back. The shift of hue is rounded down, those
    of saturation and value towards 0; grey pixels stay grey. The way back rounds down, so even tiny shifts darken a
    coloured pixel by a third of a level on average. An image whose three shifts are all 0 is returned unchanged.
    """
    hue, saturation, value = (shift[:, None, None] for shift in (hue, saturation, value))
    h, s, v = _rgb_to_hsv(*split(pixels))
    h = h + jnp.floor(hue)
    h = h - 180 * jnp.floor(h / 180)
    s = jnp.where(s == 0, 0.0, jnp.clip(s + jnp.trunc(saturation), 0, 255))
    v = jnp.clip(v + jnp.trunc(value), 0, 255)
    unchanged = (hue == 0) & (saturation == 0) & (value == 0)
    return jnp.where(unchanged, pixels, join(*_hsv_to_rgb(h, s, v)))


def _rgb_to_hsv(red: jax.Array, green: jax.Array, blue: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hue in 0..179, saturation and value in 0..255, each [B, H, W]: cv2.COLOR_RGB2HSV on uint8, exactly.

    OpenCV divides by a table of reciprocals with 12 fractional bits. The same integers are formed here; all stay below
    2**24, so float32 holds them exactly. An error of one unit of hue would move a channel by up to 8 levels.
    """
    value = jnp.maximum(jnp.maximum(red, green), blue)
    spread = value - jnp.minimum(jnp.minimum(red, green), blue)
    saturation = _round_shift_12(spread * jnp.round(255 * 4096 / jnp.maximum(value, 1)))
    hue = jnp.where(
        value == red,
        green - blue,
        jnp.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    hue = _round_shift_12(hue * jnp.round(30 * 4096 / jnp.maximum(spread, 1)))
    return jnp.where(hue < 0, hue + 180, hue), saturation, value


def _round_shift_12(number: jax.Array) -> jax.Array:
    return jnp.floor((number + 2048) / 4096)


def _hsv_to_rgb(hue: jax.Array, saturation: jax.Array, value: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Red, green and blue: cv2.COLOR_HSV2RGB on uint8.

    OpenCV's vector code, which does 32 pixels of a row at a time (with AVX2), drops the fraction; its scalar code for
    the rest of a row rounds to nearest. The former is followed here for every width. Scaling to 0..1 and back is part
    of the model: it decides on which side of a whole number the many exact results fall.
    """
    sector = hue / 30
    dip = saturation / 255
    peak = value / 255

    def channel(distance: jax.Array) -> jax.Array:
        return jnp.floor(peak * (1 - dip * jnp.clip(distance, 0, 1)) * 255)

    red = channel(2 - jnp.abs(sector - 3))
    green = channel(jnp.abs(sector - 2) - 1)
    blue = channel(jnp.abs(sector - 4) - 1)
    return red, green, blue


def augment(
    images: jax.Array, key: jax.Array, strengths: Strengths, mean: tuple[float, float, float], used: Collection[str]
) -> jax.Array:
    """Augments each image on its own.

    In this order: TrivialAugment, RandAugment, crop, flip, affine, cutout, holes, brightness/contrast, hue/saturation/value,
    cutout in the mean colour.

    Args:
      images: [B, H, W, 3] uint8; so is the result.
      key: of the draws, which depend on it and on B alone, not on how the batch is spread over devices.
      strengths: zeros return the input exactly.
      mean: the colour of the last cutout, each channel in 0..1.
      used: names of the probabilities that are ever above 0. The program has the first three operations and the last only if
        they are named: TrivialAugment alone takes seconds to compile.
    """
    batch, height, width, _ = images.shape
    rows = iter(jax.random.uniform(key, (26, batch)))  # as many as are drawn below, each time one for each image
    pixels = pack(images)
    if not {"trivial_probability", "randaugment_probability"}.isdisjoint(used):
        pixels = automatic(pixels, jax.random.fold_in(key, 0), strengths)
    if "crop_probability" in used:
        pixels = _crop_at_random(pixels, jax.random.fold_in(key, 1), strengths)

    def draw(probability: jax.Array | float) -> jax.Array:
        return next(rows) < probability

    def change(touched: jax.Array, strength: jax.Array | float) -> jax.Array:
        return jnp.where(touched, strength * (2 * next(rows) - 1), 0.0)

    pixels = flip(pixels, draw(strengths.flip_probability))

    touched = draw(strengths.affine_probability)
    pixels = if_needed(
        strengths.affine_probability > 0,
        affine,
        pixels,
        change(touched, strengths.shift * width),
        change(touched, strengths.shift * height),
        1 + change(touched, strengths.scale),
        change(touched, strengths.rotate),
    )

    size = jnp.clip(jnp.round(strengths.cutout_size), 0, min(height, width))
    side = jnp.where(draw(strengths.cutout_probability), size, 0.0)
    top, left = (jnp.floor(next(rows) * (extent - size + 1)) for extent in (height, width))
    pixels = cutout(pixels, top, left, side, side)

    pixels = _cut_holes(pixels, rows, strengths)

    touched = draw(strengths.brightness_contrast_probability)
    pixels = brightness_contrast(pixels, change(touched, strengths.brightness), change(touched, strengths.contrast))

    touched = draw(strengths.color_probability)
    pixels = if_needed(
        strengths.color_probability > 0,
        hue_saturation_value,
        pixels,
        change(touched, strengths.hue),
        change(touched, strengths.saturation),
        change(touched, strengths.value),
    )
    assert next(rows, None) is None, "rows are left that nothing was drawn from"
    if "mean_cutout_probability" in used:
        pixels = _cut_out_the_mean(pixels, jax.random.fold_in(key, 2), strengths, mean)
    return unpack(pixels)


def _cut_holes(pixels: jax.Array, rows: Iterator[jax.Array], strengths: Strengths) -> jax.Array:
    """As CoarseDropout does by default: one rectangle or two, their sides drawn apart and rounded down."""
    _, height, width = pixels.shape
    spread = strengths.holes_largest - strengths.holes_smallest
    first = next(rows) < strengths.holes_probability
    for is_cut in (first, first & (next(rows) < 0.5)):
        sides = [jnp.floor(extent * (strengths.holes_smallest + spread * next(rows))) for extent in (height, width)]
        top, left = (jnp.floor(next(rows) * (extent - side + 1)) for extent, side in zip((height, width), sides, strict=True))
        pixels = cutout(pixels, top, left, jnp.where(is_cut, sides[0], 0.0), sides[1])
    return pixels


def _crop_at_random(pixels: jax.Array, key: jax.Array, strengths: Strengths) -> jax.Array:
    batch, height, width = pixels.shape
    touched, reflects, *places = jax.random.uniform(key, (4, batch))
    padding = jnp.clip(jnp.round(strengths.crop_padding), 0, min(height, width) - 1)
    shifts = [
        jnp.where(touched < strengths.crop_probability, jnp.floor(place * (2 * padding + 1)) - padding, 0.0) for place in places
    ]
    return if_needed(strengths.crop_probability > 0, crop, pixels, *shifts, reflects < strengths.crop_reflection)


def _cut_out_the_mean(pixels: jax.Array, key: jax.Array, strengths: Strengths, mean: tuple[float, float, float]) -> jax.Array:
    """The published cutout: the centre of the square is any pixel, so parts of it may lie outside.

    There it sets a normalised image to 0. Here the image is bytes, as it may still be mixed with another: each channel is the
    byte nearest to the mean, so that normalised it lies within 0.5 / (255 * std), about 0.008, of 0.
    """
    batch, height, width = pixels.shape
    touched, *places = jax.random.uniform(key, (3, batch))
    size = jnp.round(strengths.mean_cutout_size)
    side = jnp.where(touched < strengths.mean_cutout_probability, size, 0.0)
    top, left = (jnp.floor(place * extent) - jnp.floor(size / 2) for place, extent in zip(places, (height, width), strict=True))
    color = sum(round(255 * level) << shift for level, shift in zip(mean, (0, 8, 16), strict=True))
    return if_needed(
        strengths.mean_cutout_probability > 0, functools.partial(cutout, color=color), pixels, top, left, side, side
    )
