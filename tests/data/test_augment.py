"""Operations against results of OpenCV and Albumentations; draws, order, tracing and sharding of augment."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
import pytest

from wrn_jax.config.levels import LEVELS, Strengths
from wrn_jax.data import augment, normalisation

VECTORS = np.load(pathlib.Path(__file__).parents[1] / "vectors" / "augment.npz")

# One operation each, always applied.
SINGLE = {
    "flip": Strengths(flip_probability=1.0),
    "affine": Strengths(affine_probability=1.0, shift=0.1, scale=0.1, rotate=15.0),
    "cutout": Strengths(cutout_probability=1.0, cutout_size=3.0),
    "holes": Strengths(holes_probability=1.0, holes_smallest=0.2, holes_largest=0.4),
    "brightness_contrast": Strengths(brightness_contrast_probability=1.0, brightness=0.2, contrast=0.2),
    "color": Strengths(color_probability=1.0, hue=10.0, saturation=20.0, value=10.0),
}

MEAN = (0.5, 0.25, 0.75)  # bytes 128, 64, 191
ALWAYS = functools.partial(augment.augment, mean=MEAN, used=())
"""What every program has."""

run = jax.jit(ALWAYS)

# The operations that a program has only if they are used: those before the others, and the one after them.
BEFORE = {
    "trivial": Strengths(trivial_probability=1.0, wide_ranges=0.5),
    "randaugment": Strengths(
        randaugment_probability=1.0, randaugment_operations=2.0, randaugment_magnitude=9.0, wide_ranges=0.5
    ),
    "crop": Strengths(crop_probability=1.0, crop_padding=4.0, crop_reflection=0.5),
}
AFTER = {"mean_cutout": Strengths(mean_cutout_probability=1.0, mean_cutout_size=6.0)}
WITH_ALL = functools.partial(augment.augment, mean=MEAN, used={f"{name}_probability" for name in (*BEFORE, *AFTER)})

run_all = jax.jit(WITH_ALL)


def noise(batch, height=8, width=8, low=1, seed=0):
    return np.random.default_rng(seed).integers(low, 256, (batch, height, width, 3), dtype=np.uint8)


def on_images(operation, images, *parameters):
    """An operation on pixels, for images [B, H, W, 3] uint8."""
    return np.asarray(augment.unpack(operation(augment.pack(images), *parameters)))


def arrays(strengths):
    """The form in which a training step passes strengths: float32 scalars."""
    return jax.tree.map(np.float32, strengths)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "mean_tolerance"),
    [
        ("affine", "images", "affine", 2e-3),
        ("affine", "wide_images", "wide_affine", 2e-3),
        ("cutout", "images", "cutout", 0.0),
        ("brightness_contrast", "images", "brightness_contrast", 1e-4),
        ("hue_saturation_value", "images", "hue_saturation_value", 2e-3),
    ],
)
def test_operation_agrees_with_reference(name, inputs, outputs, mean_tolerance):
    """Never more than one level away, and on average (which is then the share of values that differ) hardly at all."""
    images, expected, parameters = VECTORS[inputs], VECTORS[outputs], VECTORS[f"{name}_parameters"]
    cases, count = expected.shape[:2]
    batch = np.tile(images, (cases, 1, 1, 1))
    columns = np.repeat(parameters, count, axis=0).T
    if name == "cutout":
        columns = (*columns, columns[-1])  # squares
    result = on_images(jax.jit(getattr(augment, name)), batch, *columns)
    difference = np.abs(result.reshape(expected.shape).astype(int) - expected)
    assert difference.max() <= (1 if mean_tolerance else 0)
    assert difference.mean() <= mean_tolerance


def test_flip_agrees_with_reference_where_asked():
    images = VECTORS["images"]
    where = np.arange(len(images)) % 2 == 0
    result = on_images(augment.flip, images, where)
    np.testing.assert_array_equal(result[where], VECTORS["flip"][where])
    np.testing.assert_array_equal(result[~where], images[~where])


def test_zero_hue_saturation_value_leaves_images_unchanged():
    """The way through integer HSV and back changes most images, so neutral parameters need their own path."""
    images, zero = noise(64), np.zeros(64, np.float32)
    np.testing.assert_array_equal(on_images(augment.hue_saturation_value, images, zero, zero, zero), images)


FIELDS = [field.name for field in dataclasses.fields(Strengths)]
ZERO_PROBABILITIES = {name: 0.0 for name in FIELDS if name.endswith("probability")}
ZERO_AMOUNTS = {name: 0.0 for name in FIELDS if not name.endswith("probability")} | {"flip_probability": 0.0}


@pytest.mark.parametrize(
    "strengths",
    [
        Strengths(),
        dataclasses.replace(LEVELS["full"], **ZERO_PROBABILITIES),
        dataclasses.replace(LEVELS["full"], **ZERO_AMOUNTS),
    ],
    ids=["all zero", "probabilities zero", "amounts zero"],
)
@pytest.mark.parametrize("shape", [(32, 32), (7, 12)])
def test_zero_strengths_are_the_identity(strengths, shape):
    images = noise(256, *shape, low=0)
    np.testing.assert_array_equal(run(images, jax.random.key(1), arrays(strengths)), images)


def test_results_are_bytes_that_follow_the_key():
    images = noise(256, 32, 32, low=0)
    first, again, other = (np.asarray(run(images, jax.random.key(seed), arrays(LEVELS["full"]))) for seed in (1, 1, 2))
    assert first.dtype == np.uint8
    assert first.shape == images.shape
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=(1, 2, 3)).mean() > 0.9


def test_operations_touch_the_share_asked_for_independently():
    images, probability = noise(4096), np.float32(0.3)
    touched = {}
    for name, single in SINGLE.items():
        rare = dataclasses.replace(arrays(single), **{f"{name}_probability": probability})
        result = run(images, jax.random.key(3), rare)
        touched[name] = np.asarray(result != images).any(axis=(1, 2, 3))
        assert abs(touched[name].mean() - 0.3) < 0.03  # four standard deviations
    both = np.cov(np.stack(list(touched.values())).astype(float))
    assert np.abs(both - np.diag(np.diag(both))).max() < 0.015


def ramp(batch, axis, height=17, width=33, slope=4):
    """Rises by `slope` a pixel along `axis`, 128 at the centre."""
    x = np.arange(width) - (width - 1) // 2 if axis == "x" else np.zeros(width, int)
    y = np.arange(height) - (height - 1) // 2 if axis == "y" else np.zeros(height, int)
    plane = 128 + slope * (x[None, :] + y[:, None])
    return np.broadcast_to(plane[None, :, :, None], (batch, height, width, 3)).astype(np.uint8)


def flat(batch, *color):
    return np.broadcast_to(np.array(color, np.uint8)[None, None, None], (batch, 4, 4, 3))


CENTER, RIGHT = (8, 16), (8, 26)  # of a 17 x 33 ramp; RIGHT is 10 pixels off the centre
AFFINE = Strengths(affine_probability=0.5)
LIGHT = Strengths(brightness_contrast_probability=0.5)
COLOR = Strengths(color_probability=0.5)


@pytest.mark.parametrize(
    ("base", "field", "strength", "images", "measure", "low", "high"),
    [
        (AFFINE, "shift", 0.1, ramp(4000, "x"), lambda out: out[:, *CENTER, 0], 128 - 13.2, 128 + 13.2),
        (AFFINE, "shift", 0.1, ramp(4000, "y"), lambda out: out[:, *CENTER, 0], 128 - 6.8, 128 + 6.8),
        (AFFINE, "scale", 0.1, ramp(4000, "x", slope=7), lambda out: out[:, *RIGHT, 0], 128 + 70 / 1.1, 128 + 70 / 0.9),
        (AFFINE, "rotate", 15.0, ramp(4000, "y"), lambda out: out[:, *RIGHT, 0], 128 - 10.35, 128 + 10.35),
        (LIGHT, "brightness", 0.2, flat(4000, 100, 100, 100), lambda out: out[:, 0, 0, 0], 49, 150),
        (LIGHT, "contrast", 0.2, flat(4000, 100, 100, 100), lambda out: out[:, 0, 0, 0], 80, 120),
        (COLOR, "hue", 10.0, flat(4000, 255, 0, 0), lambda out: out[:, 0, 0, 1].astype(int) - out[:, 0, 0, 2], -85, 76),
        (COLOR, "saturation", 20.0, flat(4000, 200, 100, 100), lambda out: out[:, 0, 0, 1], 85, 115),
        (COLOR, "value", 10.0, flat(4000, 100, 100, 100), lambda out: out[:, 0, 0, 0], 91, 109),
    ],
    ids=["shift x", "shift y", "scale", "rotate", "brightness", "contrast", "hue", "saturation", "value"],
)
def test_amounts_fill_their_range_and_stay_inside(base, field, strength, images, measure, low, high):
    """Among the half of the images that is changed: the amount must not depend on the draw that picked them."""
    strengths = arrays(dataclasses.replace(base, **{field: strength}))
    result = np.asarray(run(images, jax.random.key(4), strengths))
    measured = measure(result)[(result != images).any(axis=(1, 2, 3))]
    assert low - 0.6 <= measured.min() <= low + 0.02 * (high - low) + 0.6
    assert high - 0.02 * (high - low) - 0.6 <= measured.max() <= high + 0.6
    quarters = np.histogram(measured, bins=4, range=(low - 0.6, high + 0.6))[0]
    assert quarters.min() > 350  # of 2000: a quarter each, up to the unevenness of whole levels and of 1 / scale


def test_shifts_along_the_axes_are_independent():
    images = np.concatenate([ramp(2000, "x")[..., :1], ramp(2000, "y")[..., :2]], axis=3)
    strengths = arrays(Strengths(affine_probability=1.0, shift=0.1))
    center = np.asarray(run(images, jax.random.key(9), strengths))[:, *CENTER]
    assert abs(np.corrcoef(center[:, 0], center[:, 1])[0, 1]) < 0.08


def test_brightness_and_contrast_are_independent():
    strengths = arrays(Strengths(brightness_contrast_probability=1.0, brightness=0.1, contrast=0.2))
    dark, light, _ = np.asarray(run(flat(2000, 60, 180, 0), jax.random.key(10), strengths))[:, 0, 0].T.astype(float)
    factor = (light - dark) / 120
    assert abs(np.corrcoef(factor, dark - 60 * factor)[0, 1]) < 0.08


@pytest.mark.parametrize("size", [1, 3, 8])
def test_cutout_is_one_square_inside_and_lies_anywhere(size):
    height, width = 8, 12
    strengths = arrays(Strengths(cutout_probability=1.0, cutout_size=size))
    hole = np.asarray(run(noise(4096, height, width), jax.random.key(5), strengths) == 0).all(axis=3)
    assert (hole.sum(axis=(1, 2)) == size * size).all()
    rows, columns = hole.any(axis=2), hole.any(axis=1)
    assert (rows.sum(axis=1) == size).all()
    assert (columns.sum(axis=1) == size).all()
    places = set(zip(rows.argmax(axis=1), columns.argmax(axis=1), strict=True))
    assert len(places) == (height - size + 1) * (width - size + 1)


def test_holes_are_one_or_two_rectangles_of_the_sides_asked_for():
    """As CoarseDropout by default: sides 0.1 to 0.2 of 32 pixels, rounded down, are 3 to 6."""
    strengths = arrays(Strengths(holes_probability=1.0, holes_smallest=0.1, holes_largest=0.2))
    black = np.asarray(run(noise(8192, 32, 32), jax.random.key(5), strengths) == 0).all(axis=3)
    rows, columns, area = black.any(axis=2).sum(axis=1), black.any(axis=1).sum(axis=1), black.sum(axis=(1, 2))
    single = rows * columns == area  # one rectangle, but for the rare pair that touches or overlaps in one
    assert abs(single.mean() - 0.5) < 0.03
    # 0.1 to 0.2 of 32 is 3.2 to 6.4: the ends are cut, by 1/4 and by 7/8.
    expected = np.array([0.8, 1, 1, 0.4]) / 3.2
    for sides in (rows[single], columns[single]):
        shares = np.bincount(sides, minlength=13)[:13] / len(sides)
        np.testing.assert_allclose(shares[3:7], expected, atol=0.03)
        assert shares[7:].sum() < 0.01
    assert abs(np.corrcoef(rows[single], columns[single])[0, 1]) < 0.06
    tops = black[single].any(axis=2).argmax(axis=1)
    assert (tops.min(), tops.max()) == (0, 29)
    two = ~single
    assert 3 < rows[two].max() <= 32
    assert area[two].max() <= 72


def test_operations_follow_in_the_documented_order():
    """Draws depend on the key and the operation alone, so the chain equals its operations one by one."""
    images, key, singles = noise(128, 32, 32), jax.random.key(6), BEFORE | SINGLE | AFTER
    everything = Strengths(**{name: max(getattr(single, name) for single in singles.values()) for name in FIELDS})
    expected = images
    for single in singles.values():
        changed = np.asarray(run_all(expected, key, arrays(single)))
        assert (changed != expected).any()
        expected = changed
    np.testing.assert_array_equal(run_all(images, key, arrays(everything)), expected)


def test_a_program_with_all_operations_does_what_the_others_do():
    """Where the further ones are at rest: the same bytes, by the same draws."""
    images, key = noise(128, 32, 32, low=0), jax.random.key(2)
    for level in LEVELS.values():
        np.testing.assert_array_equal(run_all(images, key, arrays(level)), run(images, key, arrays(level)))
    idle = Strengths(**{name: 2.0 for name in FIELDS if not name.endswith("probability")})
    np.testing.assert_array_equal(run_all(images, key, arrays(idle)), images)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_crop_is_a_window_of_the_padded_image(mode):
    image, padding = noise(1, 7, 12)[0], 6
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode=mode)
    shifts = np.array([(x, y) for x in range(-6, 7) for y in range(-6, 7)], np.float32)
    images, reflects = np.broadcast_to(image, (len(shifts), *image.shape)), np.full(len(shifts), mode == "reflect")
    for found, (x, y) in zip(
        on_images(jax.jit(augment.crop), images, *shifts.T, reflects), shifts.astype(int) + padding, strict=True
    ):
        np.testing.assert_array_equal(found, padded[y : y + 7, x : x + 12])


def test_crops_lie_anywhere_and_are_padded_as_asked_for():
    strengths = arrays(Strengths(crop_probability=0.5, crop_padding=2.0, crop_reflection=0.25))
    y, x = np.mgrid[:8, :8]
    image = np.stack([x + 1, y + 1, x + 1], axis=-1).astype(np.uint8)
    pixels = augment.pack(np.broadcast_to(image, (8000, *image.shape)))
    result = np.asarray(augment.unpack(augment._crop_at_random(pixels, jax.random.key(5), strengths)))
    place = result[:, 4, 4, :2].astype(int) - 5
    changed = (result != image).any(axis=(1, 2, 3))
    assert abs(changed.mean() - 0.5 * 24 / 25) < 0.025
    counts = np.unique(place[changed], axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert counts.min() > 100  # of 160
    assert abs((result[changed] == 0).any(axis=(1, 2, 3)).mean() - 0.75) < 0.03


def test_cutout_in_the_mean_colour_has_its_centre_anywhere():
    """So parts of it lie outside: of 8 pixels, a side of 4 keeps 2, 3 or 4. The colour is the nearest byte."""
    strengths = arrays(Strengths(mean_cutout_probability=0.5, mean_cutout_size=4.0))
    pixels = augment.pack(np.zeros((8000, 8, 8, 3), np.uint8))
    result = np.asarray(augment.unpack(augment._cut_out_the_mean(pixels, jax.random.key(5), strengths, MEAN)))
    hole = (result == (128, 64, 191)).all(axis=3)
    np.testing.assert_array_equal(hole, (result != 0).any(axis=3))
    cut = hole[hole.any(axis=(1, 2))]
    assert abs(len(cut) / len(hole) - 0.5) < 0.025
    spans = {1: (0, 2), 2: (0, 3), 3: (0, 4), 4: (1, 5), 5: (2, 6), 6: (3, 7), 7: (4, 8), 8: (5, 8)}
    for along in (cut.any(axis=2), cut.any(axis=1)):
        rows, counts = np.unique(along, axis=0, return_counts=True)
        assert {(int(row.argmax()), 8 - int(row[::-1].argmax())) for row in rows} == set(spans.values())
        assert counts.min() > 400  # of 500


def test_levels_share_one_trace():
    traces = []

    def counted(*arguments):
        traces.append(1)
        return ALWAYS(*arguments)

    counted_run, images = jax.jit(counted), noise(16)
    counted_run(images, jax.random.key(7), arrays(LEVELS["off"]))
    with jax.no_tracing(True):
        for strengths in LEVELS.values():
            counted_run(images, jax.random.key(7), arrays(strengths))
    assert len(traces) == 1


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about the compiler for CPUs")
def test_nothing_is_computed_once_for_each_channel():
    """About 290 operations a pixel; 600 where what reads an operation's result computes it anew."""
    images, key, strengths = noise(64, 32, 32), jax.random.key(0), arrays(LEVELS["full"])
    cost = run.lower(images, key, strengths).compile().cost_analysis()
    assert cost["flops"] / (len(images) * 32 * 32) < 400


def test_levels_are_those_of_the_reference_runs():
    rows = {name: dataclasses.astuple(level) for name, level in LEVELS.items()}
    assert {name: row[17:] for name, row in rows.items()} == dict.fromkeys(rows, (0,) * 10)
    assert {name: row[:17] for name, row in rows.items()} == {
        "off": (0,) * 17,
        "minimal": (0.5, 0, 0, 0, 0, 0.3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        "reduced": (0.5, 0.35, 0.05, 0.07, 10, 0.35, 6, 0, 0, 0, 0.2, 0.15, 0.15, 0, 0, 0, 0),
        "full": (0.5, 0.5, 0.0625, 0.1, 15, 0.5, 8, 0, 0, 0, 0.3, 0.2, 0.2, 0.3, 10, 20, 10),
    }


@pytest.mark.skipif(jax.device_count() < 2, reason="needs several devices")
def test_sharded_batch_gives_the_same_images_without_moving_them():
    images, key = noise(128, 32, 32), jax.random.key(8)
    strengths = [arrays(level) for level in (LEVELS["full"], *BEFORE.values(), *AFTER.values())]
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    compiled = (
        jax.jit(WITH_ALL, in_shardings=(split, whole, whole), out_shardings=split).lower(images, key, strengths[0]).compile()
    )
    assert "all-gather" not in compiled.as_text()
    assert "all-to-all" not in compiled.as_text()
    for level in strengths:
        np.testing.assert_array_equal(compiled(images, key, level), run_all(images, key, level))


def test_normalises_each_channel():
    images, mean, std = noise(4, low=0), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    result = normalisation.Normalisation(mean, std)(images)
    np.testing.assert_allclose(result, (images / 255.0 - mean) / std, rtol=1e-5, atol=1e-6)
