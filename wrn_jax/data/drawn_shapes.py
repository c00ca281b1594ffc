"""A data set drawn by code: 100 classes of small colour pictures, for runs where CIFAR is not at hand.

A class is a shape (10 of them) filled with a texture (10). Place, size, turn, stretch, mirroring, colours, background,
clutter, lighting, an occluder and pixel noise vary from picture to picture and say nothing about the class. A class is
therefore unchanged by the augmentations of the recipes: mirroring, a small affine map, a cut-out square, a change of
colour. It has the form of CIFAR-100 (32x32 RGB, 100 balanced classes), not its difficulty; no accuracy reached here
can be compared with one on CIFAR.

Pixels are made with + - * / sqrt, comparisons and rounding only. Those are the same to the last bit on every machine,
whereas sin, cos and exp depend on the processor's vector unit. So one seed gives the same bytes everywhere, as long as
numpy keeps its random streams; a test compares with a digest.
"""

import numpy as np

from wrn_jax.config.datasets import DATASETS, TEXTURES

_INFO = DATASETS["embedded"]
SIZE = _INFO.image_shape[0]  # pixels along an edge
NUM_CLASSES = _INFO.num_classes


def draw(num_train: int, num_test: int, seed: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Draws a training and a test set.

    Args:
      num_train, num_test: number of images of each set, at least 1. Classes are equally frequent where the number is a
        multiple of 100, else their frequencies differ by one at most.
      seed: non-negative int. The same seed gives the same bytes; a longer set starts with the images of a shorter one.

    Returns:
      ((images, labels), (images, labels)), training set first; images: [N, 32, 32, 3] uint8, labels: [N] int32, an
      index into the class names of `DATASETS`.

    Raises:
      ValueError: a number below 1 or a negative seed.
    """
    if num_train < 1 or num_test < 1:
        raise ValueError(f"num_train and num_test must be at least 1, got {num_train} and {num_test}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    return _draw_set(num_train, (seed, 0)), _draw_set(num_test, (seed, 1))


def _draw_set(num_images: int, entropy: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draws rounds of 100 images, one per class: (images [num_images, 32, 32, 3] uint8, labels [num_images] int32)."""
    rounds = -(-num_images // NUM_CLASSES)
    images = np.empty((rounds, NUM_CLASSES, SIZE, SIZE, 3), np.uint8)
    labels = np.empty((rounds, NUM_CLASSES), np.int32)
    for index in range(rounds):
        # A stream of its own for every round makes an image independent of how many are asked for.
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence((*entropy, index))))
        order = np.argsort(rng.random(NUM_CLASSES), kind="stable")
        images[index] = _draw_round(rng)[order]
        labels[index] = order
    return images.reshape(-1, SIZE, SIZE, 3)[:num_images], labels.reshape(-1)[:num_images]


def _draw_round(rng: np.random.Generator) -> np.ndarray:
    """One image of every class in class order, [100, 32, 32, 3] uint8."""
    line = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
    column, row = line[None, None, :], line[None, :, None]

    radius = _uniform(rng, 8.5, 13)
    centre = _uniform(rng, -3.5, 3.5), _uniform(rng, -3.5, 3.5)
    across, down = _turn(rng, column - centre[0], row - centre[1], tangent=0.18)  # up to 20 degrees either way
    stretch = _uniform(rng, 0.87, 1.15)
    across, down = across * stretch * _sign(rng), down / stretch

    inside = _by_shape(across / radius, down / radius) * radius  # distance to the edge in pixels, roughly
    blend = _by_texture(rng, across, down, radius, inside)
    # Three grey levels apart from each other keep texture and outline visible whatever the colours.
    step = _uniform(rng, 36, 80), _uniform(rng, 36, 80)
    lowest = 15 + (225 - step[0] - step[1]) * _uniform(rng, 0, 1)
    levels = np.concatenate([lowest, lowest + step[0], lowest + step[0] + step[1]], axis=1)[..., None]  # [100, 3, 1, 1]
    levels = np.take_along_axis(levels, np.argsort(rng.random((NUM_CLASSES, 3)), axis=1)[..., None, None], axis=1)
    colours = levels + _uniform(rng, -45, 45, (NUM_CLASSES, 3, 1, 3))
    ground, first, second = (colours[:, index, None] for index in range(3))  # each [100, 1, 1, 3]

    picture = ground + _uniform(rng, 8, 32)[..., None] * _blotches(rng, 5)
    for _ in range(3):
        picture = _paint(picture, _stroke(rng, column, row, reach=15, thickest=2.5), _uniform(rng, 20, 235, channels=3))
    picture = _paint(picture, inside, first + (second - first) * blend[..., None])
    hidden = np.where(rng.random((NUM_CLASSES, 1, 1)) < 0.5, _stroke(rng, column, row, reach=9, thickest=2), -1)
    picture = _paint(picture, hidden, _uniform(rng, 20, 235, channels=3))

    light = 1 + (_uniform(rng, -0.25, 0.25) * column + _uniform(rng, -0.25, 0.25) * row) / (SIZE / 2)
    grain = rng.integers(-128, 128, (2, NUM_CLASSES, SIZE, SIZE, 3), np.int8).sum(0, dtype=np.int16)
    picture = picture * light[..., None] + grain * (_uniform(rng, 2, 16)[..., None] / 128)
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)


def _uniform(
    rng: np.random.Generator,
    low: float,
    high: float,
    shape: tuple[int, ...] = (NUM_CLASSES, 1, 1),
    channels: int | None = None,
) -> np.ndarray:
    """Uniform float32 numbers, one per image ([100, 1, 1]) or one per image and channel ([100, 1, 1, channels])."""
    shape = shape if channels is None else (*shape, channels)
    return rng.random(shape, np.float32) * np.float32(high - low) + np.float32(low)


def _sign(rng: np.random.Generator) -> np.ndarray:
    """-1 or 1 for each image, [100, 1, 1] float32."""
    return np.where(rng.random((NUM_CLASSES, 1, 1)) < 0.5, np.float32(-1), np.float32(1))


def _turn(rng: np.random.Generator, across: np.ndarray, down: np.ndarray, tangent: float) -> tuple[np.ndarray, np.ndarray]:
    """Rotates coordinates by an angle whose half has a tangent in [-tangent, tangent]; needs no sine."""
    half = _uniform(rng, -tangent, tangent)
    cosine, sine = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    return cosine * across + sine * down, cosine * down - sine * across


def _paint(picture: np.ndarray, inside: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Lays a colour where `inside` (pixels from the edge, positive inside) says so, with a one-pixel soft edge."""
    return picture + (colour - picture) * np.clip(inside + np.float32(0.5), 0, 1)[..., None]


def _blotches(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth noise in -1..1, [100, 32, 32, 3]: random values on a coarse grid, interpolated linearly."""
    values = _uniform(rng, -1, 1, (NUM_CLASSES, cells, cells, 3))
    place = np.arange(SIZE, dtype=np.float32) * np.float32((cells - 1) / SIZE)
    low = place.astype(np.int32)
    part = place - low
    values = values[:, low] + (values[:, low + 1] - values[:, low]) * part[:, None, None]
    return values[:, :, low] + (values[:, :, low + 1] - values[:, :, low]) * part[:, None]


def _stroke(rng: np.random.Generator, column: np.ndarray, row: np.ndarray, reach: float, thickest: float) -> np.ndarray:
    """A short thick line anywhere within `reach` pixels of the centre: pixels from its edge, [100, 32, 32]."""
    across, down = _turn(rng, column - _uniform(rng, -reach, reach), row - _uniform(rng, -reach, reach), tangent=1)
    beyond = np.maximum(np.abs(across) - _uniform(rng, 0, 7), 0)
    return _uniform(rng, 1, thickest) - np.sqrt(beyond * beyond + down * down)


def _by_shape(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to the edge of each class's shape, positive inside; x, y in units of the radius, [100, 32, 32]."""
    drawers = (_circle, _square, _triangle, _star, _cross, _ring, _heart, _crescent, _bar, _hourglass)
    parts = [draw_shape(x[rows], y[rows]) for draw_shape, rows in zip(drawers, _shape_rows(), strict=True)]
    return np.concatenate(parts)


def _shape_rows() -> list[slice]:
    """Rows of a round that hold each shape: class index = 10 * shape + texture."""
    return [slice(10 * index, 10 * index + 10) for index in range(10)]


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.92 - np.sqrt(x * x + y * y)


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.8 - np.maximum(np.abs(x), np.abs(y))


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(0.55 - y, 0.5 - 0.87 * np.abs(x) + 0.5 * y)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # A point lies in a five-pointed star when it is on the inner side of at least four of its five lines.
    side, wide = np.abs(x), 0.4
    distances = (
        wide - y,
        wide - (0.951 * side + 0.309 * y),
        wide - (-0.951 * side + 0.309 * y),
        wide - (0.588 * side - 0.809 * y),
        wide - (-0.588 * side - 0.809 * y),
    )
    smallest = second = np.full_like(x, 9)
    for distance in distances:
        second = np.minimum(second, np.maximum(smallest, distance))
        smallest = np.minimum(smallest, distance)
    return second


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    long, short = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.minimum(0.95 - long, 0.33 - short)


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.27 - np.abs(np.sqrt(x * x + y * y) - 0.69)


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    side = np.abs(x)
    lobe = 0.5 - np.sqrt((side - 0.43) * (side - 0.43) + (y + 0.34) * (y + 0.34))
    point = np.minimum(0.62 - 0.72 * side - 0.69 * y, y + 0.34)
    return np.maximum(lobe, point)


def _crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(0.95 - np.sqrt(x * x + y * y), np.sqrt((x - 0.5) * (x - 0.5) + y * y) - 0.66)


def _bar(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(1 - np.abs(x), 0.4 - np.abs(y))


def _hourglass(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.minimum(0.85 - np.abs(y), 0.8 * np.abs(y) + 0.1 - 0.8 * np.abs(x))


def _by_texture(
    rng: np.random.Generator, across: np.ndarray, down: np.ndarray, radius: np.ndarray, inside: np.ndarray
) -> np.ndarray:
    """Share of the second colour in 0..1, [100, 32, 32]; across, down, radius, inside in pixels."""
    period, phase = _uniform(rng, 4.2, 6.5), (_uniform(rng, 0, 1), _uniform(rng, 0, 1))
    flip, chance = _sign(rng), rng.random((NUM_CLASSES, SIZE // 2, SIZE // 2)) < 0.5
    blend = np.empty(across.shape, np.float32)
    for index, texture in enumerate(TEXTURES):
        rows = slice(index, None, 10)
        u, v = across[rows] / period[rows] + phase[0][rows], down[rows] / period[rows] + phase[1][rows]
        if texture == "plain":
            part = 0
        elif texture == "striped":
            part = _wave(v)
        elif texture == "barred":
            part = _wave(u)
        elif texture == "checked":
            part = _wave(u) + _wave(v) - 2 * _wave(u) * _wave(v)
        elif texture == "dotted":
            away = _from_middle(u) * _from_middle(u) + _from_middle(v) * _from_middle(v)
            part = np.clip((0.33 - np.sqrt(away)) * period[rows] + 0.5, 0, 1)
        elif texture == "ringed":
            part = _wave(np.sqrt(across[rows] * across[rows] + down[rows] * down[rows]) / period[rows] + phase[0][rows])
        elif texture == "rayed":  # the sign of sin(4 * angle), eight rays
            x, y = across[rows], down[rows]
            square = x * x + y * y + 0.1
            part = np.clip(8 * flip[rows] * x * y * (x * x - y * y) / (square * square) + 0.5, 0, 1)
        elif texture == "graded":
            part = np.clip(0.5 + 0.6 * flip[rows] * down[rows] / radius[rows], 0, 1)
        elif texture == "speckled":
            part = chance[rows].repeat(2, axis=1).repeat(2, axis=2)
        else:  # outlined
            part = np.clip(2.5 - inside[rows], 0, 1)
        blend[rows] = part
    return blend


def _from_middle(u: np.ndarray) -> np.ndarray:
    """Signed distance from the middle of the unit cell that u lies in, -0.5..0.5."""
    return u - np.floor(u) - 0.5


def _wave(u: np.ndarray) -> np.ndarray:
    """A square wave of period 1 in 0..1 with soft edges."""
    return np.clip((np.abs(_from_middle(u)) - 0.25) * 5 + 0.5, 0, 1)
