"""Image augmentation on the device: flip, affine warp, cutout, holes, brightness/contrast, hue/saturation/value.

The reference pipeline works on uint8 images with OpenCV and Albumentations and rounds after every operation. So does
this module: images travel as float32, [B, H, W, 3], RGB, and every operation takes and returns whole numbers in 0..255,
rounded the way its model rounds (to nearest or down, as each docstring says). The warp packs pixels into bytes and hue
is counted in whole units, so the reference can be met to within one level only this way.

Every parameter is an array, so strengths can move during a run without a recompile. An operation that is not applied to
an image gets its neutral parameters and returns that image unchanged, bit for bit.

`tests/vectors/augment.npz` holds results of OpenCV 5.0.0 and Albumentations 2.0.8; the tests say how closely they are
met.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Strengths:
    """How strongly `augment` acts: numbers or float32 scalars. A change is drawn uniformly from -strength..strength."""

    flip_probability: float = 0.0  # of a horizontal flip
    affine_probability: float = 0.0  # of one warp that shifts, scales and rotates
    shift: float = 0.0  # fraction of the side, drawn for each axis
    scale: float = 0.0  # 0.1: a factor in 0.9..1.1
    rotate: float = 0.0  # degrees
    cutout_probability: float = 0.0  # of one black square
    cutout_size: float = 0.0  # side of the square in pixels, rounded to a whole number
    holes_probability: float = 0.0  # of one or two black rectangles
    holes_smallest: float = 0.0  # shortest side of a rectangle as a fraction of the image's
    holes_largest: float = 0.0  # longest side likewise
    brightness_contrast_probability: float = 0.0  # of a change of both
    brightness: float = 0.0  # fraction of 255 that is added
    contrast: float = 0.0  # 0.2: a factor in 0.8..1.2
    color_probability: float = 0.0  # of a change of hue, saturation and value together
    hue: float = 0.0  # OpenCV's uint8 units: 180 is the full circle
    saturation: float = 0.0  # OpenCV's uint8 units: 255 is full saturation
    value: float = 0.0  # levels of 255


LEVELS: dict[str, Strengths] = {
    "off": Strengths(),
    "minimal": Strengths(flip_probability=0.5, cutout_probability=0.3, cutout_size=4.0),
    "reduced": Strengths(
        flip_probability=0.5,
        affine_probability=0.35,
        shift=0.05,
        scale=0.07,
        rotate=10.0,
        cutout_probability=0.35,
        cutout_size=6.0,
        brightness_contrast_probability=0.2,
        brightness=0.15,
        contrast=0.15,
    ),
    "full": Strengths(
        flip_probability=0.5,
        affine_probability=0.5,
        shift=0.0625,
        scale=0.1,
        rotate=15.0,
        cutout_probability=0.5,
        cutout_size=8.0,
        brightness_contrast_probability=0.3,
        brightness=0.2,
        contrast=0.2,
        color_probability=0.3,
        hue=10.0,
        saturation=20.0,
        value=10.0,
    ),
}


def flip(images: jax.Array, flip: jax.Array) -> jax.Array:
    """Mirrors left and right the images whose entry in `flip`, [B] bool, is true. As cv2.flip(image, 1)."""
    return jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)


def affine(images: jax.Array, shift_x: jax.Array, shift_y: jax.Array, scale: jax.Array, angle: jax.Array) -> jax.Array:
    """Rotates and scales about the centre ((W-1)/2, (H-1)/2), then shifts: one bilinear warp, rounded to nearest.

    `images` must hold whole numbers in 0..255, H and W be at least 2. `shift_x` (right) and `shift_y` (down) are in
    pixels, `scale` is a factor (> 1 enlarges), `angle` is in degrees counter-clockwise; each [B].

    As cv2.warpAffine with INTER_LINEAR, BORDER_REFLECT_101 and the matrix of cv2.getRotationMatrix2D plus the shift, in
    OpenCV 5, which keeps source coordinates and weights in float32. OpenCV 4 rounds coordinates to 1/32 of a pixel
    first: on pure noise its results differ from these, as from those of OpenCV 5, by 0.8 levels on average.
    """
    batch, height, width, _ = images.shape
    x, y = _source_coordinates(shift_x, shift_y, scale, angle, height, width)
    # The last column and row are reached from the pixel before them with weight 1, so all four neighbours always exist.
    # The lower bound is for a division in _reflect that some device may round up: x could then be just below 0.
    left, top = jnp.clip(jnp.floor(x), 0, width - 2), jnp.clip(jnp.floor(y), 0, height - 2)
    x_weight, y_weight = x - left, y - top
    index = (top * width + left).astype(jnp.int32).reshape(batch, height * width)

    # One 32-bit word per pixel and channel holds its 2x2 neighbourhood: one gather per channel fetches all four taps.
    # Gathering RGB triples four times takes 4 us/image on a CPU instead of 8, but the compiler for TPU pads the triples
    # to 128 lanes: 284 MB instead of 4 MB at batch 256, and by its own estimate 17 times the cycles.
    words = images.astype(jnp.uint32)
    words = words | (jnp.roll(words, -1, axis=2) << 8)
    words = words | (jnp.roll(words, -1, axis=1) << 16)
    words = words.reshape(batch, height * width, 3)

    def warp(channel):
        taps = jnp.take_along_axis(words[..., channel], index, axis=1, mode="clip").reshape(batch, height, width)
        top_left, top_right, bottom_left, bottom_right = (((taps >> bits) & 255).astype(jnp.float32) for bits in (0, 8, 16, 24))
        upper = top_left + (top_right - top_left) * x_weight
        lower = bottom_left + (bottom_right - bottom_left) * x_weight
        return jnp.round(upper + (lower - upper) * y_weight)

    return jnp.stack([warp(0), warp(1), warp(2)], axis=-1)


def _source_coordinates(shift_x, shift_y, scale, angle, height, width):
    """Where each target pixel reads: x in 0..W-1 and y in 0..H-1, both [B, H, W] float32, reflections folded in."""
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    radians = jnp.deg2rad(angle)
    cosine, sine = (jnp.cos(radians) / scale)[:, None, None], (jnp.sin(radians) / scale)[:, None, None]
    x = (jnp.arange(width, dtype=jnp.float32) - center_x)[None, None, :] - shift_x[:, None, None]
    y = (jnp.arange(height, dtype=jnp.float32) - center_y)[None, :, None] - shift_y[:, None, None]
    source_x = cosine * x - sine * y + center_x
    source_y = sine * x + cosine * y + center_y
    return _reflect(source_x, width), _reflect(source_y, height)


def _reflect(coordinate, size):
    """Folds a coordinate into 0..size-1 by mirroring at both end pixels (BORDER_REFLECT_101).

    Linear interpolation commutes with this mirroring, so one fold replaces a border rule for each of the taps.
    """
    last = size - 1
    coordinate = jnp.abs(coordinate)
    coordinate = coordinate - 2 * last * jnp.floor(coordinate / (2 * last))
    return last - jnp.abs(last - coordinate)


def cutout(images: jax.Array, top: jax.Array, left: jax.Array, height: jax.Array, width: jax.Array) -> jax.Array:
    """Sets to 0 the rectangle whose upper left pixel is in row `top`, column `left`; all in pixels, each [B].

    Whole numbers are expected; side 0 leaves the image as it is. Cutout of DeVries & Taylor 2017, arXiv:1708.04552, where
    the rectangle is a square; as Albumentations' CoarseDropout with one hole and fill 0.
    """
    y = jnp.arange(images.shape[1], dtype=jnp.float32)[None, :] - top[:, None]
    x = jnp.arange(images.shape[2], dtype=jnp.float32)[None, :] - left[:, None]
    in_rows = (y >= 0) & (y < height[:, None])
    in_columns = (x >= 0) & (x < width[:, None])
    inside = in_rows[:, :, None, None] & in_columns[:, None, :, None]
    return jnp.where(inside, 0.0, images)


def brightness_contrast(images: jax.Array, brightness: jax.Array, contrast: jax.Array) -> jax.Array:
    """images * (1 + contrast) + 255 * brightness, clipped to 0..255 and rounded down; both parameters [B].

    As Albumentations' RandomBrightnessContrast(brightness_by_max=True), whose uint8 table drops the fraction.
    """
    factor, offset = 1 + contrast[:, None, None, None], 255 * brightness[:, None, None, None]
    return jnp.floor(jnp.clip(images * factor + offset, 0, 255))


def hue_saturation_value(images: jax.Array, hue: jax.Array, saturation: jax.Array, value: jax.Array) -> jax.Array:
    """Shifts hue (turning, 180 is the full circle), saturation and value (both clipped to 0..255); each parameter [B].

    As Albumentations' HueSaturationValue: through OpenCV's uint8 HSV and back. The shift of hue is rounded down, those
    of saturation and value towards 0; grey pixels stay grey. The way back rounds down, so even tiny shifts darken a
    coloured pixel by a third of a level on average. An image whose three shifts are all 0 is returned unchanged.
    """
    hue, saturation, value = (shift[:, None, None] for shift in (hue, saturation, value))
    h, s, v = _rgb_to_hsv(images)
    h = h + jnp.floor(hue)
    h = h - 180 * jnp.floor(h / 180)
    s = jnp.where(s == 0, 0.0, jnp.clip(s + jnp.trunc(saturation), 0, 255))
    v = jnp.clip(v + jnp.trunc(value), 0, 255)
    unchanged = (hue == 0) & (saturation == 0) & (value == 0)
    return jnp.where(unchanged[..., None], images, _hsv_to_rgb(h, s, v))


def _rgb_to_hsv(images):
    """Hue in 0..179, saturation and value in 0..255, each [B, H, W]: cv2.COLOR_RGB2HSV on uint8, exactly.

    OpenCV divides by a table of reciprocals with 12 fractional bits. The same integers are formed here; all stay below
    2**24, so float32 holds them exactly. An error of one unit of hue would move a channel by up to 8 levels.
    """
    red, green, blue = images[..., 0], images[..., 1], images[..., 2]
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


def _round_shift_12(number):
    return jnp.floor((number + 2048) / 4096)


def _hsv_to_rgb(hue, saturation, value):
    """[B, H, W, 3] from three [B, H, W]: cv2.COLOR_HSV2RGB on uint8.

    OpenCV's vector code, which does 32 pixels of a row at a time (with AVX2), drops the fraction; its scalar code for
    the rest of a row rounds to nearest. The former is followed here for every width. Scaling to 0..1 and back is part
    of the model: it decides on which side of a whole number the many exact results fall.
    """
    sector = hue / 30
    dip = saturation / 255
    peak = value / 255

    def channel(distance):
        return jnp.floor(peak * (1 - dip * jnp.clip(distance, 0, 1)) * 255)

    red = channel(2 - jnp.abs(sector - 3))
    green = channel(jnp.abs(sector - 2) - 1)
    blue = channel(jnp.abs(sector - 4) - 1)
    return jnp.stack([red, green, blue], axis=-1)


def augment(images: jax.Array, key: jax.Array, strengths: Strengths) -> jax.Array:
    """Augments each image on its own: flip, affine, cutout, holes, brightness/contrast, hue/saturation/value, in this order.

    `images`: [B, H, W, 3] uint8. Returns float32 of the same shape, whole numbers in 0..255. Zero strengths return the
    input exactly. The draws depend on `key` and B alone, not on how the batch is spread over devices.
    """
    batch, height, width, _ = images.shape

    def draw(stream, probability, count):
        """Which images are touched, [B] bool, and `count` rows [B] of uniform numbers in [0, 1)."""
        rows = jax.random.uniform(jax.random.fold_in(key, stream), (count + 1, batch))
        return rows[0] < probability, rows[1:]

    def change(touched, strength, uniform):
        return jnp.where(touched, strength * (2 * uniform - 1), 0.0)

    touched, _ = draw(0, strengths.flip_probability, 0)
    images = flip(images.astype(jnp.float32), touched)

    touched, uniform = draw(1, strengths.affine_probability, 4)
    images = affine(
        images,
        change(touched, strengths.shift * width, uniform[0]),
        change(touched, strengths.shift * height, uniform[1]),
        1 + change(touched, strengths.scale, uniform[2]),
        change(touched, strengths.rotate, uniform[3]),
    )

    touched, uniform = draw(2, strengths.cutout_probability, 2)
    size = jnp.clip(jnp.round(strengths.cutout_size), 0, min(height, width))
    side = jnp.where(touched, size, 0.0)
    images = cutout(
        images,
        jnp.floor(uniform[0] * (height - size + 1)),
        jnp.floor(uniform[1] * (width - size + 1)),
        side,
        side,
    )

    # What CoarseDropout does by default: one rectangle or two, their sides drawn apart and rounded down.
    touched, uniform = draw(5, strengths.holes_probability, 9)
    spread = strengths.holes_largest - strengths.holes_smallest
    for is_cut, rows in ((touched, uniform[:4]), (touched & (uniform[8] < 0.5), uniform[4:8])):
        hole_height, hole_width = (
            jnp.floor(extent * (strengths.holes_smallest + spread * row))
            for extent, row in zip((height, width), rows[:2], strict=True)
        )
        images = cutout(
            images,
            jnp.floor(rows[2] * (height - hole_height + 1)),
            jnp.floor(rows[3] * (width - hole_width + 1)),
            jnp.where(is_cut, hole_height, 0.0),
            hole_width,
        )

    touched, uniform = draw(3, strengths.brightness_contrast_probability, 2)
    images = brightness_contrast(
        images,
        change(touched, strengths.brightness, uniform[0]),
        change(touched, strengths.contrast, uniform[1]),
    )

    touched, uniform = draw(4, strengths.color_probability, 3)
    return hue_saturation_value(
        images,
        change(touched, strengths.hue, uniform[0]),
        change(touched, strengths.saturation, uniform[1]),
        change(touched, strengths.value, uniform[2]),
    )


def normalize(images: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """(images / 255 - mean) / std; `images` [B, H, W, 3] in 0..255, `mean` and `std` [3] as fractions of 255."""
    return (images / 255 - mean[None, None, None, :]) / std[None, None, None, :]
