"""Common corruptions of CIFAR images, made on the device: noise, blur, weather and digital, at five severities each.

After Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
arXiv:1903.12261: the formulas and constants of their generator of CIFAR-10-C and CIFAR-100-C, under the names of its files.
Two of its corruptions are not here: frost needs photographs of frosted windows, and spatter an edge detector, a distance
transform and a histogram equalisation. So a mean over the benchmark (`extra` false) has 14 terms here and 15 there.

Images travel as float32 in 0..255, [B, 32, 32, C]. Where chance comes in beyond plain noise, a function of its own
(`shuffled`, `motion_blurred`, `snowed`, `fogged`, `warped`) takes the drawn numbers, so that it can be compared with
references. The generator computes in float64 and drops the fraction at the end; so does this module in float32, hence a
result that is a whole number on paper may differ from the generator's by one level. `tests/vectors/corruptions.npz` holds
results of SciPy, scikit-image, OpenCV, Pillow and ImageMagick; the tests say how closely they are met.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from wrn_jax.config.datasets import DATASETS

SIZE = DATASETS["cifar100"].image_shape[0]
SEVERITIES = (1, 2, 3, 4, 5)

# What float32 may leave a whole number short of. Without it, a flat image would come out one level darker after a blur.
SLACK = 5e-5


@dataclasses.dataclass(frozen=True)
class Corruption:
    """One way to spoil images.

    Attributes:
      apply: (images float32 in 0..255, key, *constants) -> images, not yet clipped to 0..255 and rounded down; its name is
        that of the file of CIFAR-100-C.
      constants: the further arguments of `apply`, for each of the five severities.
      extra: whether it is one of the four that the benchmark keeps out of its mean.
    """

    apply: Callable[..., jax.Array]
    constants: tuple[tuple, ...]
    extra: bool = False


def corrupt(images: jax.Array, name: str, severity: int, key: jax.Array) -> jax.Array:
    """Corrupts each image on its own.

    `images` [B, 32, 32, 3] uint8 -> the same shape, uint8. `name` is a key of CORRUPTIONS and `severity` 1 (weak) to 5;
    under `jax.jit` both are static. The draws depend on `key` and B alone, not on how the batch is spread over devices;
    every image of the batch has its own.

    Raises ValueError for an unknown name or severity, and for images of another shape or type.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"{name!r} is no corruption; there are {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity!r}: should be 1, 2, 3, 4 or 5")
    if images.ndim != 4 or images.shape[1:] != (SIZE, SIZE, 3) or images.dtype != np.uint8:
        raise ValueError(f"images: should be [B, {SIZE}, {SIZE}, 3] uint8, not {list(images.shape)} {images.dtype}")
    corruption = CORRUPTIONS[name]
    constants = corruption.constants[int(severity) - 1]
    return whole(corruption.apply(images.astype(jnp.float32), key, *constants)).astype(jnp.uint8)


def whole(levels: jax.Array) -> jax.Array:
    """Whole levels in 0..255, still float32: clips and drops the fraction."""
    return jnp.floor(jnp.clip(levels + SLACK, 0, 255))


def gaussian_noise(images: jax.Array, key: jax.Array, scale: float) -> jax.Array:
    """Adds normal noise to every value; `scale` is its standard deviation as a fraction of 255."""
    return images + 255 * scale * jax.random.normal(key, images.shape)


def shot_noise(images: jax.Array, key: jax.Array, photons: int) -> jax.Array:
    """Replaces every value by a Poisson count with that mean; level 255 stands for `photons` of them and is the most.

    There are but 256 means, so the counts are looked up in tables of the distribution. That takes a twentieth of the time of
    jax.random.poisson on a CPU; what happens less often than once in 1e7 draws does not happen.
    """
    counts = jnp.zeros(images.shape, jnp.int32)
    size = 1 << photons.bit_length()
    table = jnp.asarray(poisson_table(photons, size).ravel(), jnp.float32)
    uniform, row = jax.random.uniform(key, images.shape), images.astype(jnp.int32) * size
    step = size // 2
    while step:
        # Bisection: counts is at least this much more where the chance of less is at most the drawn number.
        more = jnp.take(table, row + counts + step - 1, mode="clip") <= uniform
        counts, step = counts + jnp.where(more, step, 0), step // 2
    # In whole numbers: many results are whole on paper, and a rounded division would move them by one level.
    return (counts * 255 // photons).astype(jnp.float32)


def poisson_table(photons: int, size: int) -> np.ndarray:
    """[256, size]: the chance of a count of at most 0, 1, ... for each level; 2, so never reached, from `photons` on."""
    count = np.arange(photons)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(count[1:]))])
    mean = np.arange(1, 256)[:, None] * photons / 255
    chances = np.exp(count * np.log(mean) - mean - log_factorial)
    table = np.full((256, size), 2.0)
    table[1:, :photons] = np.cumsum(chances, axis=1)
    return table


def impulse_noise(images: jax.Array, key: jax.Array, amount: float) -> jax.Array:
    """Salt and pepper: sets the share `amount` of all values (not pixels) to 0 or 255, either with equal chance."""
    uniform = jax.random.uniform(key, images.shape)
    return jnp.where(uniform < amount / 2, 0.0, jnp.where(uniform < amount, 255.0, images))


def speckle_noise(images: jax.Array, key: jax.Array, scale: float) -> jax.Array:
    """Multiplies every value by a normal number of mean 1 and standard deviation `scale`."""
    return images * (1 + scale * jax.random.normal(key, images.shape))


def gaussian_blur(images: jax.Array, key: jax.Array, sigma: float) -> jax.Array:
    """Gaussian filter with standard deviation `sigma` in pixels, border pixels repeated, as skimage.filters.gaussian."""
    rows = gaussian_rows(sigma, truncate=4, border="edge")
    return _along_both_axes(rows, images)


def gaussian_rows(sigma: float, truncate: float, border: Literal["edge", "symmetric"]) -> np.ndarray:
    """A Gaussian filter along one axis as a [32, 32] matrix; it ends at `truncate` * sigma; `border` as in numpy.pad."""
    radius = int(truncate * sigma + 0.5)
    weights = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    sources = np.pad(np.eye(SIZE), ((radius, radius), (0, 0)), mode=border)
    shifted = (weight * sources[tap : tap + SIZE] for tap, weight in enumerate(weights / weights.sum()))
    return sum(shifted)  # pyright: ignore[reportReturnType]  # never empty, so not the number 0


def _along_both_axes(rows: ArrayLike, images: jax.Array) -> jax.Array:
    """rows @ image @ rows.T for every channel of [B, 32, 32, C]."""
    rows = jnp.asarray(rows, jnp.float32)
    images = jnp.einsum("yi,bixc->byxc", rows, images, precision="highest")
    return jnp.einsum("xj,byjc->byxc", rows, images, precision="highest")


def defocus_blur(images: jax.Array, key: jax.Array, radius: float, sigma: float) -> jax.Array:
    """Filters with a disc of `radius` pixels whose rim a 3x3 Gaussian of `sigma` softens; borders mirrored.

    Discs of a radius below 1 are one pixel, so the 3x3 Gaussian is then all there is.
    """
    offset = np.arange(-3, 4)
    disc = (offset[:, None] ** 2 + offset[None, :] ** 2 <= radius**2).astype(float)
    weights = np.exp(-(np.arange(-1, 2) ** 2) / (2 * sigma**2))
    soften = sum(weight * np.eye(7, k=k) for k, weight in zip((-1, 0, 1), weights / weights.sum(), strict=True))
    kernel = soften @ (disc / disc.sum()) @ soften
    padded = jnp.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    shifted = (kernel[y, x] * padded[:, y : y + SIZE, x : x + SIZE] for y, x in np.argwhere(kernel > 1e-9))
    return sum(shifted)  # pyright: ignore[reportReturnType]  # never empty, so not the number 0


def glass_blur(images: jax.Array, key: jax.Array, sigma: float, rounds: int) -> jax.Array:
    """Gaussian blur, `rounds` times `shuffled`, Gaussian blur; whole levels in between."""
    images = whole(gaussian_blur(images, key, sigma))
    for moves in jax.random.bernoulli(key, 0.5, (rounds, len(images), SIZE - 2, SIZE - 2, 2)):
        images = shuffled(images, moves)
    return gaussian_blur(images, key, sigma)


def shuffled(images: jax.Array, moves: jax.Array) -> jax.Array:
    """Replaces every pixel from row and column 2 on by itself or a neighbour: the one above, to the left, or both.

    `moves` [B, 30, 30, 2] bool: whether to go up, whether to go left. The generator means to swap pixels, from the last to
    the first, but assigns to views of one array, so that it copies: every pixel is read before it is written, and all can
    be done at once.
    """
    up, left = moves[..., :1], moves[..., 1:]
    row = jnp.where(left, images[:, 2:, 1:-1], images[:, 2:, 2:])
    row_above = jnp.where(left, images[:, 1:-1, 1:-1], images[:, 1:-1, 2:])
    return images.at[:, 2:, 2:].set(jnp.where(up, row_above, row))


def motion_blur(images: jax.Array, key: jax.Array, radius: float, sigma: float) -> jax.Array:
    """`motion_blurred` along a line within 45 degrees of the horizontal, drawn for each image."""
    angles = jax.random.uniform(key, (len(images),), minval=-45, maxval=45)
    return motion_blurred(images, angles, radius, sigma)


def motion_blurred(images: jax.Array, angles: jax.Array, radius: float, sigma: float) -> jax.Array:
    """Smears [B, 32, 32, C] images from one side, each along its own of `angles` [B] in degrees; whole levels.

    Every pixel becomes a mean over 2 * radius + 1 pixels, itself the first, on a line to the right, turned clockwise by the
    angle; the weights are half a Gaussian of `sigma` pixels; border pixels are repeated. As ImageMagick's MotionBlurImage.
    """
    width = 2 * math.ceil(radius) + 1
    weights = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2))
    steps, radians = jnp.arange(width, dtype=jnp.float32)[:, None], jnp.deg2rad(angles)[None, :]
    down = jnp.ceil(steps * jnp.sin(radians) - 0.5).astype(jnp.int32)
    right = jnp.ceil(steps * jnp.cos(radians) - 0.5).astype(jnp.int32)
    padded = jnp.pad(images, ((0, 0), (width, width), (width, width), (0, 0)), mode="edge")

    def window(image: jax.Array, down: jax.Array, right: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (width + down, width + right, 0), (SIZE, SIZE, image.shape[2]))

    def add(total: jax.Array, tap: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        weight, down, right = tap
        return total + weight * jax.vmap(window)(padded, down, right), None

    weights = jnp.asarray(weights / weights.sum(), jnp.float32)
    total, _ = jax.lax.scan(add, jnp.zeros_like(images), (weights, down, right))
    # ImageMagick rounds to 16 bits and drops the fraction on the way to 8.
    return jnp.floor(total + 1 / 514)


def zoom_blur(images: jax.Array, key: jax.Array, end: float) -> jax.Array:
    """The mean of the image and its enlargements by 1, 1.01, 1.02, ... up to, not including, `end`."""
    factors = np.arange(1, end, 0.01)
    # One matrix over all pixels: on a CPU up to four times as fast as one enlargement after the other.
    matrix = np.eye(SIZE**2) + sum(np.kron(rows, rows) for rows in map(zoom_rows, factors))
    matrix = jnp.asarray(matrix / (len(factors) + 1), jnp.float32)
    pixels = images.reshape(-1, SIZE**2, images.shape[3])
    return jnp.einsum("oi,bic->boc", matrix, pixels, precision="highest").reshape(images.shape)


def zoom_rows(factor: float) -> np.ndarray:
    """Enlarging the middle of an image to its full size along one axis, linearly, as a [32, 32] matrix.

    Takes 32 / factor pixels rounded up, resizes them as scipy.ndimage.zoom(order=1) and cuts the middle 32 out of that.
    """
    taken = math.ceil(SIZE / factor)
    size = round(taken * factor)
    position = (np.arange(SIZE) + (size - SIZE) // 2) * (taken - 1) / (size - 1)
    below = np.minimum(position.astype(int), taken - 2)
    sources = np.eye(SIZE)[(SIZE - taken) // 2 :]
    weight = (position - below)[:, None]
    return (1 - weight) * sources[below] + weight * sources[below + 1]


def snow(
    images: jax.Array,
    key: jax.Array,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    share: float,
) -> jax.Array:
    """`snowed` with a layer of normal noise and a direction within 45 degrees of straight up, drawn for each image."""
    layer_key, angle_key = jax.random.split(key)
    layer = mean + deviation * jax.random.normal(layer_key, (len(images), SIZE, SIZE))
    angles = jax.random.uniform(angle_key, (len(images),), minval=-135, maxval=-45)
    return snowed(images, layer, angles, zoom, threshold, radius, sigma, share)


def snowed(
    images: jax.Array,
    layer: jax.Array,
    angles: jax.Array,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    share: float,
) -> jax.Array:
    """Whitens the images but for a `share` and adds flakes: the peaks of `layer`, smeared, and the same upside down.

    `layer` [B, 32, 32], 0 black and 1 white, is enlarged by `zoom`, set to 0 below `threshold`, brought to whole levels and
    `motion_blurred` along `angles` [B].
    """
    layer = _along_both_axes(zoom_rows(zoom), layer[..., None])
    layer = whole(255 * jnp.where(layer < threshold, 0.0, layer))
    layer = motion_blurred(layer, angles, radius, sigma)
    grey = 0.299 * images[..., :1] + 0.587 * images[..., 1:2] + 0.114 * images[..., 2:]
    whitened = share * images + (1 - share) * jnp.maximum(images, 1.5 * grey + 127.5)
    return whitened + layer + layer[:, ::-1, ::-1]


def fog(images: jax.Array, key: jax.Array, amount: float, decay: float) -> jax.Array:
    """`fogged` with draws for each image."""
    return fogged(images, jax.random.uniform(key, (len(images), SIZE**2 - 1), minval=-1.0), amount, decay)


def fogged(images: jax.Array, draws: jax.Array, amount: float, decay: float) -> jax.Array:
    """Adds `amount` of `plasma`, then scales so that the brightest value an image can have is the brightest it had."""
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    haze = 255 * amount * plasma(draws, decay)[..., None]
    return (images + haze) * (brightest / (brightest + 255 * amount))


def plasma(draws: jax.Array, decay: float) -> jax.Array:
    """Clouds in 0..1, [B, 32, 32], by the diamond-square algorithm on a torus.

    `draws` [B, 1023] in -1..1: for grids of 1, 4, 16, 64 and 256 points those of the squares' middles, of the middles of
    the horizontal and of the vertical edges, row by row. Their weight is 100**2 at first and falls by
    `decay`**2 from grid to grid.
    """
    grid = jnp.zeros((len(draws), 1, 1))
    used, wobble = 0, 100.0
    while (side := grid.shape[1]) < SIZE:
        noise = draws[:, used : used + 3 * side**2].reshape(-1, 3, side, side) * wobble**2
        used, wobble = used + 3 * side**2, wobble / decay
        right, below = jnp.roll(grid, -1, axis=2), jnp.roll(grid, -1, axis=1)
        middles = (grid + right + below + jnp.roll(right, -1, axis=1)) / 4 + noise[:, 0]
        horizontal = (grid + right + middles + jnp.roll(middles, 1, axis=1)) / 4 + noise[:, 1]
        vertical = (grid + below + middles + jnp.roll(middles, 1, axis=2)) / 4 + noise[:, 2]
        even_rows, odd_rows = jnp.stack([grid, horizontal], axis=3), jnp.stack([vertical, middles], axis=3)
        grid = jnp.stack([even_rows, odd_rows], axis=2).reshape(-1, 2 * side, 2 * side)
    grid = grid - grid.min(axis=(1, 2), keepdims=True)
    return grid / grid.max(axis=(1, 2), keepdims=True)


def brightness(images: jax.Array, key: jax.Array, change: float) -> jax.Array:
    """Adds `change`, a fraction of 255, to the value of HSV, up to 255. Hue and saturation stay, so ratios do."""
    value = images.max(axis=3, keepdims=True)
    brighter = jnp.minimum(value + 255 * change, 255)
    return jnp.where(value == 0, brighter, images * (brighter / jnp.maximum(value, 1)))


def contrast(images: jax.Array, key: jax.Array, factor: float) -> jax.Array:
    """Scales the distance of every value from its channel's mean over the image."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    return (images - mean) * factor + mean


def elastic_transform(images: jax.Array, key: jax.Array, shift: float, amount: float, sigma: float) -> jax.Array:
    """`warped` with draws for each image; the three points move by up to `shift` pixels in x and in y."""
    moves_key, field_key = jax.random.split(key)
    moves = jax.random.uniform(moves_key, (len(images), 3, 2), minval=-shift, maxval=shift)
    field = jax.random.uniform(field_key, (len(images), 2, SIZE, SIZE), minval=-1.0)
    return warped(images, moves, field, amount, sigma)


def warped(images: jax.Array, moves: jax.Array, field: jax.Array, amount: float, sigma: float) -> jax.Array:
    """An affine warp, then a smooth displacement, both bilinear.

    `moves` [B, 3, 2]: how far the points (26, 26), (26, 6) and (6, 6) of the image are moved, x and y in pixels; borders are
    mirrored about the last pixel. `field` [B, 2, 32, 32] in -1..1, smoothed by a Gaussian of `sigma` pixels and multiplied
    by `amount` pixels, tells how far from its own place, in x and y, each pixel then reads; borders are mirrored about the
    image's edge. As cv2.warpAffine and scipy.ndimage.map_coordinates(order=1, mode="reflect").
    """
    source_x, source_y = (_mirror(source, 0, SIZE - 1) for source in _affine_sources(moves))
    images = _bilinear(images, source_x, source_y)
    if amount == 0:
        return images
    rows = gaussian_rows(sigma, truncate=3, border="symmetric")
    smooth = amount * _along_both_axes(rows, field.transpose(0, 2, 3, 1))
    source_x = jnp.arange(SIZE, dtype=jnp.float32)[None, None, :] + smooth[..., 0]
    source_y = jnp.arange(SIZE, dtype=jnp.float32)[None, :, None] + smooth[..., 1]
    return _bilinear(images, _mirror(source_x, -0.5, SIZE - 0.5), _mirror(source_y, -0.5, SIZE - 0.5))


def _affine_sources(moves: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where each pixel reads so that the three points of `warped` move by `moves`: x and y, both [B, 32, 32]."""
    moves = moves[..., None, None]
    # The forward matrix [[xx, xy], [yx, yy]]: the points lie 20 pixels apart along the axes.
    xx, yx = (1 + (moves[:, 1, 0] - moves[:, 2, 0]) / 20), (moves[:, 1, 1] - moves[:, 2, 1]) / 20
    xy, yy = (moves[:, 0, 0] - moves[:, 1, 0]) / 20, 1 + (moves[:, 0, 1] - moves[:, 1, 1]) / 20
    area = xx * yy - xy * yx
    x, y = jnp.arange(SIZE, dtype=jnp.float32)[None, None, :], jnp.arange(SIZE, dtype=jnp.float32)[None, :, None]
    corner_x, corner_y = 26 + moves[:, 1, 0], 6 + moves[:, 1, 1]

    # OpenCV 3 and 4 round both terms to 1/1024 of a pixel and their sum to 1/32. On pure noise that is 0.8 levels on average.
    def source(along_x: jax.Array, along_y: jax.Array, start: float) -> jax.Array:
        fixed = jnp.round(1024 * along_x * x) + jnp.round(1024 * (start - along_x * corner_x + along_y * (y - corner_y)))
        return jnp.floor((fixed + 16) / 32) / 32

    return source(yy / area, -xy / area, 26), source(-yx / area, xx / area, 6)


def _mirror(coordinate: jax.Array, low: float, high: float) -> jax.Array:
    """Folds a coordinate into low..high by mirroring at both, then into 0..31."""
    span = high - low
    coordinate = (coordinate - low) % (2 * span)
    return jnp.clip(low + span - jnp.abs(span - coordinate), 0, SIZE - 1)


def _bilinear(images: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Reads [B, 32, 32, C] images at x and y, both [B, 32, 32], in 0..31."""
    left, top = jnp.minimum(jnp.floor(x), SIZE - 2), jnp.minimum(jnp.floor(y), SIZE - 2)
    x_weight, y_weight = (x - left)[..., None], (y - top)[..., None]
    index = (top * SIZE + left).astype(jnp.int32).reshape(-1, SIZE**2, 1)
    pixels = images.reshape(-1, SIZE**2, images.shape[3])

    def tap(offset: int) -> jax.Array:
        return jnp.take_along_axis(pixels, index + offset, axis=1, mode="clip").reshape(images.shape)

    upper = tap(0) + (tap(1) - tap(0)) * x_weight
    lower = tap(SIZE) + (tap(SIZE + 1) - tap(SIZE)) * x_weight
    return upper + (lower - upper) * y_weight


def pixelate(images: jax.Array, key: jax.Array, size: int) -> jax.Array:
    """Shrinks to `size` pixels a side and enlarges again, both with Pillow's BOX filter, which rounds after each axis."""
    for rows in (box_rows(SIZE, size), box_rows(size, SIZE)):
        rows = jnp.asarray(rows, jnp.float32)
        images = jnp.floor(jnp.einsum("xj,byjc->byxc", rows, images, precision="highest") + 0.5)
        images = jnp.floor(jnp.einsum("yi,bixc->byxc", rows, images, precision="highest") + 0.5)
    return images


def box_rows(size: int, new_size: int) -> np.ndarray:
    """Pillow's BOX filter along one axis as a [new_size, size] matrix: the plain mean of the pixels with centres in the box."""
    scale = size / new_size
    center, reach = (np.arange(new_size)[:, None] + 0.5) * scale, max(scale, 1) / 2
    offset = np.arange(size)[None, :] + 0.5 - center
    inside = (offset > -reach) & (offset <= reach)
    return inside / inside.sum(axis=1, keepdims=True)


# ITU-T T.81, tables K.1 and K.2.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMINANCE = np.full((8, 8), 99)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# The one-dimensional transform in units of 1/8192, row by row: the first half; the second mirrors it, odd rows with the
# sign turned. It is the orthonormal one times sqrt(8), but for the last digit of some: they are the sums of the rounded
# constants through which libjpeg's algorithm multiplies.
HALF_DCT = np.array(
    [
        [8192, 8192, 8192, 8192],
        [11363, 9633, 6437, 2260],
        [10703, 4433, -4433, -10703],
        [9633, -2259, -11362, -6436],
        [8192, -8192, -8192, 8192],
        [6437, -11362, 2261, 9633],
        [4433, -10704, 10704, -4433],
        [2260, -6436, 9633, -11363],
    ]
)
DCT = np.concatenate([HALF_DCT, HALF_DCT[:, ::-1] * (-1) ** np.arange(8)[:, None]], axis=1)


def jpeg_compression(images: jax.Array, key: jax.Array, quality: int) -> jax.Array:
    """What is left after JPEG at `quality` (1 to 100) with 4:2:0 subsampling, as Pillow with libjpeg-turbo, bit for bit.

    All in whole numbers, int32, as libjpeg's accurate integer transform and its interpolating upsampling do it. The entropy
    coding in between loses nothing and is left out.
    """
    red, green, blue = (images[..., channel].astype(jnp.int32) for channel in range(3))
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    blue_chroma = (-11059 * red - 21709 * green + 32768 * blue + (128 << 16) + 32767) >> 16
    red_chroma = (32768 * red - 27439 * green - 5329 * blue + (128 << 16) + 32767) >> 16
    luma = _quantised(luma, LUMINANCE, quality)
    blue_chroma, red_chroma = (
        _doubled(_quantised(_halved(chroma), CHROMINANCE, quality)) - 128 for chroma in (blue_chroma, red_chroma)
    )
    red = luma + ((91881 * red_chroma + 32768) >> 16)
    green = luma + ((-22554 * blue_chroma - 46802 * red_chroma + 32768) >> 16)
    blue = luma + ((116130 * blue_chroma + 32768) >> 16)
    return jnp.stack([red, green, blue], axis=-1).astype(jnp.float32)


def _quantised(plane: jax.Array, table: np.ndarray, quality: int) -> jax.Array:
    """A plane of samples 0..255, [B, H, W] int32, through quantisation of its 8x8 blocks and back."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = np.clip((table * percent + 50) // 100, 1, 255)[None, None, :, None, :]
    batch, height, width = plane.shape
    blocks = plane.reshape(batch, height // 8, 8, width // 8, 8) - 128
    blocks = _transform(_transform(blocks, DCT, 4, 11), DCT, 2, 15)
    # The coefficients are eight times those of the standard.
    blocks = jnp.sign(blocks) * ((jnp.abs(blocks) + 4 * table) // (8 * table)) * table
    blocks = _transform(_transform(blocks, DCT.T, 2, 11), DCT.T, 4, 18)
    return jnp.clip(blocks + 128, 0, 255).reshape(batch, height, width)


def _transform(blocks: jax.Array, matrix: np.ndarray, axis: int, bits: int) -> jax.Array:
    """Multiplies by `matrix` along `axis` and divides by 2**bits, rounded to nearest."""
    columns = [jnp.expand_dims(jax.lax.index_in_dim(blocks, column, axis, keepdims=False), axis) for column in range(8)]
    shape = [1] * blocks.ndim
    shape[axis] = 8
    total = sum(matrix[:, column].astype(np.int32).reshape(shape) * values for column, values in enumerate(columns))
    return (total + (1 << (bits - 1))) >> bits  # pyright: ignore[reportReturnType]  # eight of JAX's arrays


def _halved(plane: jax.Array) -> jax.Array:
    """Means of 2x2 samples; halves are rounded down in even columns and up in odd ones, as libjpeg does."""
    total = plane[:, ::2, ::2] + plane[:, ::2, 1::2] + plane[:, 1::2, ::2] + plane[:, 1::2, 1::2]
    return (total + (1 + np.arange(total.shape[2]) % 2)[None, None, :]) >> 2


def _doubled(plane: jax.Array) -> jax.Array:
    """Twice the samples each way: 9, 3, 3 and 1 sixteenths of the four nearest, border samples repeated."""
    batch, height, width = plane.shape
    padded = jnp.pad(plane, ((0, 0), (1, 1), (1, 1)), mode="edge")
    middle = 3 * padded[:, 1:-1]
    rows = jnp.stack([middle + padded[:, :-2], middle + padded[:, 2:]], axis=2).reshape(batch, 2 * height, width + 2)
    middle = 3 * rows[:, :, 1:-1]
    pair = [(middle + rows[:, :, :-2] + 8) >> 4, (middle + rows[:, :, 2:] + 7) >> 4]
    return jnp.stack(pair, axis=3).reshape(batch, 2 * height, 2 * width)


def saturate(images: jax.Array, key: jax.Array, factor: float, offset: float) -> jax.Array:
    """Multiplies the saturation of HSV by `factor` and adds `offset`, within 0..1. Greys count as red."""
    value = images.max(axis=3, keepdims=True)
    spread = value - images.min(axis=3, keepdims=True)
    saturation = jnp.clip(spread / jnp.maximum(value, 1) * factor + offset, 0, 1)
    below = jnp.where(spread == 0, jnp.array([0.0, 1.0, 1.0])[None, None, None, :], (value - images) / jnp.maximum(spread, 1))
    return value * (1 - saturation * below)


# All by their formulas and constants; a comment says how near the results come, where not exactly.
CORRUPTIONS: dict[str, Corruption] = {
    corruption.apply.__name__: corruption
    for corruption in (
        Corruption(gaussian_noise, ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,))),
        Corruption(shot_noise, ((500,), (250,), (100,), (75,), (50,))),  # without counts rarer than one in 1e7
        Corruption(impulse_noise, ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,))),
        Corruption(defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),  # to one level
        Corruption(glass_blur, ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))),  # copies, not swaps; to two levels
        Corruption(motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),  # to one level of ImageMagick 6.9
        Corruption(zoom_blur, ((1.06,), (1.11,), (1.16,), (1.21,), (1.26,))),  # to one level
        Corruption(  # to one level of ImageMagick 6.9
            snow,
            (
                (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
            ),
        ),
        Corruption(fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),  # to one level
        Corruption(brightness, ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,))),  # to one level
        Corruption(contrast, ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,))),  # to one level
        Corruption(  # OpenCV 3 and 4's rounding; 1 value in 10,000 by more than one level
            elastic_transform, ((2.56, 0, 0), (2.24, 1.6, 6.4), (1.92, 2.56, 1.92), (1.6, 3.2, 1.28), (0.96, 3.2, 0.96))
        ),
        Corruption(pixelate, ((30,), (28,), (27,), (24,), (20,))),  # Pillow bit for bit
        Corruption(jpeg_compression, ((80,), (65,), (58,), (50,), (40,))),  # libjpeg-turbo bit for bit
        Corruption(speckle_noise, ((0.06,), (0.1,), (0.12,), (0.16,), (0.2,)), extra=True),
        Corruption(gaussian_blur, ((0.4,), (0.6,), (0.7,), (0.8,), (1,)), extra=True),  # to one level
        Corruption(saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)), extra=True),  # to one level
    )
}
