"""Corruptions against results of SciPy, scikit-image, OpenCV, Pillow and ImageMagick; draws, keys, severities, sharding."""

import io
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import special, stats

from wrn_jax.data import corruptions
from wrn_jax.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt

pytestmark = pytest.mark.slow

VECTORS = np.load(pathlib.Path(__file__).parents[1] / "vectors" / "corruptions.npz")
IMAGES = VECTORS["images"]  # smooth, extremes
SMOOTH = IMAGES[:1]

NOISE = [name for name in CORRUPTIONS if name.endswith("_noise")]
DRAWN = [*NOISE, "glass_blur", "motion_blur", "snow", "fog", "elastic_transform"]
PLAIN = [name for name in CORRUPTIONS if name not in DRAWN]

run = jax.jit(corrupt, static_argnames=("name", "severity"))


def apply(images, name, severity, seed):
    """Jitted what compiles fast; the rest operation by operation, and most of those serve all severities."""
    function = run if name in PLAIN and name != "jpeg_compression" else corrupt
    return np.asarray(function(images, name, severity, jax.random.key(seed)))


def flat(level, batch):
    return np.full((batch, 32, 32, 3), level, np.uint8)


@pytest.mark.parametrize(
    ("name", "mean_tolerance"),
    [
        ("defocus_blur", 0.1),
        ("zoom_blur", 0.02),
        ("brightness", 0.06),
        ("contrast", 0.001),
        ("pixelate", 0),
        ("jpeg_compression", 0),
        ("gaussian_blur", 0.035),
        ("saturate", 0.09),
    ],
)
def test_plain_corruption_agrees_with_reference(name, mean_tolerance):
    """Never more than one level away, and on average (which is then the share of values that differ) hardly at all."""
    for severity, expected in zip(SEVERITIES, VECTORS[name], strict=True):
        difference = np.abs(apply(IMAGES, name, severity, 0).astype(int) - expected)
        assert difference.max() <= (1 if mean_tolerance else 0)
        assert difference.mean() <= mean_tolerance


def glassed(images, moves, sigma, rounds):
    images = corruptions.whole(corruptions.gaussian_blur(images, None, sigma))
    for step in range(rounds):
        images = corruptions.shuffled(images, moves[:, step] == 1)
    return corruptions.gaussian_blur(images, None, sigma)


@pytest.mark.parametrize(
    ("name", "function", "draws", "constants", "tolerance", "mean_tolerance"),
    [
        ("glass_blur", glassed, ["moves"], slice(None), 2, 0.06),
        ("motion_blur", corruptions.motion_blurred, ["angle"], slice(None), 1, 1e-3),
        ("snow", corruptions.snowed, ["layer", "angle"], slice(2, None), 1, 1e-3),
        ("fog", corruptions.fogged, ["draws"], slice(None), 1, 1e-3),
        ("elastic_transform", corruptions.warped, ["moves", "field"], slice(1, None), 3, 0.03),
    ],
)
def test_drawn_corruption_agrees_with_reference_for_given_draws(name, function, draws, constants, tolerance, mean_tolerance):
    images = IMAGES.astype(np.float32)
    for severity, expected in zip(SEVERITIES, VECTORS[name], strict=True):
        given = [VECTORS[f"{name}_{draw}"][severity - 1].astype(np.float32) for draw in draws]
        row = CORRUPTIONS[name].constants[severity - 1]
        result = corruptions.whole(function(images, *given, *row[constants]))
        difference = np.abs(np.asarray(result).astype(int) - expected)
        assert difference.max() <= tolerance
        assert difference.mean() <= mean_tolerance


@pytest.mark.parametrize("quality", [5, 30, 75, 100])
def test_jpeg_agrees_with_the_pillow_that_is_here(quality):
    """Bit for bit where Pillow brings libjpeg-turbo, as its wheels do; another library may round otherwise."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    images = np.stack([noise, np.where(noise < 128, 0, 255).astype(np.uint8)])
    expected = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        expected.append(np.array(Image.open(file)))
    result = corruptions.whole(corruptions.jpeg_compression(images.astype(np.float32), None, quality))
    assert np.abs(result - np.array(expected)).mean() < 0.01


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise_has_the_moments_of_its_severity(severity):
    scale = 255 * (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    noise = np.asarray(corrupt(flat(128, 32), "gaussian_noise", severity, jax.random.key(1))) - 128.0
    assert abs(noise.mean() + 0.5) < 0.35  # the fraction is dropped; four standard deviations at most
    assert abs(noise.std() / scale - 1) < 0.015


@pytest.mark.parametrize("severity", SEVERITIES)
def test_speckle_noise_grows_with_the_level(severity):
    scale = (0.06, 0.1, 0.12, 0.16, 0.2)[severity - 1]
    for level in (0, 50, 120):
        result = np.asarray(corrupt(flat(level, 32), "speckle_noise", severity, jax.random.key(2)))
        if level == 0:
            assert not result.any()
            continue
        assert abs(result.mean() - level + 0.5) < 0.35
        assert abs(result.std() / np.hypot(level * scale, 0.29) - 1) < 0.015  # 0.29: of the dropped fraction


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_counts_are_poisson(severity):
    """Counts of each level against the Poisson distribution, all above the white level put together."""
    photons = (500, 250, 100, 75, 50)[severity - 1]
    level_of = np.arange(photons + 1) * 255 // photons
    for level in (0, 1, 40, 200, 255):
        result = np.asarray(corrupt(flat(level, 32), "shot_noise", severity, jax.random.key(3))).ravel()
        mean = level * photons / 255
        below = stats.poisson.pmf(np.arange(photons), mean)
        chances = np.append(below, max(0, 1 - below.sum()))
        expected = np.bincount(level_of, weights=chances, minlength=256) * result.size
        seen = np.bincount(result, minlength=256)
        assert seen[expected == 0].sum() == 0
        often = expected >= 5
        assert abs(seen[~often].sum() - expected[~often].sum()) < 5 + 5 * np.sqrt(expected[~often].sum())
        square = ((seen - expected)[often] ** 2 / expected[often]).sum()
        assert square < stats.chi2.isf(1e-5, often.sum())


def test_poisson_table_is_the_distribution():
    table = corruptions.poisson_table(100, 128)
    mean = np.arange(256)[:, None] * 100 / 255
    np.testing.assert_allclose(table[1:, :100], special.pdtr(np.arange(100)[None, :], mean[1:]), rtol=1e-9)
    assert table[0].min() == table[:, 100:].min() == 2


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_sets_single_values_to_black_and_white(severity):
    amount = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    result = np.asarray(corrupt(flat(100, 32), "impulse_noise", severity, jax.random.key(4)))
    assert set(np.unique(result)) == {0, 100, 255}
    spread = 4 * np.sqrt(amount / 2 / result.size)
    assert abs((result == 0).mean() - amount / 2) < spread
    assert abs((result == 255).mean() - amount / 2) < spread
    both = (result[..., 0] != 100) & (result[..., 1] != 100)
    assert both.mean() < 3 * amount**2  # channels are struck on their own


@pytest.mark.parametrize(
    ("name", "function", "severity", "ranges"),
    [
        ("glass_blur", "shuffled", 1, [(0, 1)]),
        ("motion_blur", "motion_blurred", 1, [(-45, 45)]),
        ("snow", "snowed", 1, [(0.1 - 4 * 0.2, 0.1 + 4 * 0.2), (-135, -45)]),
        ("fog", "fogged", 1, [(-1, 1)]),
        ("elastic_transform", "warped", 1, [(-2.56, 2.56), (-1, 1)]),
        ("elastic_transform", "warped", 5, [(-0.96, 0.96), (-1, 1)]),
    ],
)
def test_draws_fill_their_range_for_each_image(monkeypatch, name, function, severity, ranges):
    batch, taken = 64, []

    def take(images, *arguments):
        taken.extend(arguments[: len(ranges)])
        return images

    monkeypatch.setattr(corruptions, function, take)
    corrupt(flat(100, batch), name, severity, jax.random.key(5))
    for draw, (low, high) in zip(taken, ranges, strict=True):
        draw = np.asarray(draw, np.float32)
        assert draw.shape[0] == batch
        assert len(np.unique(draw.reshape(batch, -1), axis=0)) == batch
        if name == "snow" and low > -1:
            assert abs(draw.mean() - 0.1) < 0.005
            assert abs(draw.std() - 0.2) < 0.005
            continue
        assert low <= draw.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < draw.max() <= high
        assert abs(draw.mean() - (low + high) / 2) < 0.15 * (high - low)


def test_glass_blur_draws_anew_for_each_round(monkeypatch):
    taken = []

    def take(images, moves):
        taken.append(np.asarray(moves))
        return images

    monkeypatch.setattr(corruptions, "shuffled", take)
    for severity in SEVERITIES:
        taken.clear()
        corrupt(flat(100, 64), "glass_blur", severity, jax.random.key(6))
        assert len(taken) == (1 if severity < 4 else 2)
    assert (taken[0] != taken[1]).any()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_result_follows_key_and_place_alone(name):
    """Every image has draws of its own, which do not depend on the other images; without draws, the key does not count."""
    images = np.repeat(SMOOTH, 2, axis=0)
    first, again, other = (apply(images, name, 5, seed) for seed in (7, 7, 8))
    assert first.dtype == np.uint8
    assert first.shape == images.shape
    np.testing.assert_array_equal(first, again)

    def differ(one, two):
        return (one != two).any(axis=(1, 2, 3))

    assert (differ(first, other) == (name in DRAWN)).all()
    assert (differ(first[:-1], first[1:]) == (name in DRAWN)).all()
    mixed = np.concatenate([IMAGES[1:2], images[1:]])
    np.testing.assert_array_equal(apply(mixed, name, 5, 7)[1:], first[1:])


# The generator's constants do not make these stronger from one severity to the next.
UNORDERED = {"glass_blur", "elastic_transform", "saturate"}


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in UNORDERED])
def test_severities_grow(name):
    images = np.repeat(SMOOTH, 2, axis=0)
    results = [apply(images, name, severity, 9).astype(int) for severity in SEVERITIES]
    distances = [np.abs(result - images).mean() for result in results]
    assert distances[0] > 0
    # Severities 3 and 4 of motion blur differ in weights below 1e-8 alone.
    assert (np.diff(distances) > (-1e-9 if name == "motion_blur" else 0)).all()
    assert distances[-1] > distances[0]


def test_every_corruption_has_constants_for_each_severity():
    assert len(CORRUPTIONS) == 17
    assert {len(corruption.constants) for corruption in CORRUPTIONS.values()} == {len(SEVERITIES)}


@pytest.mark.parametrize(
    ("images", "name", "severity", "words"),
    [
        (IMAGES, "frost", 1, "'frost' is no corruption; there are gaussian_noise, "),
        (IMAGES, "fog", 0, "severity 0: should be 1, 2, 3, 4 or 5"),
        (IMAGES, "fog", 6, "severity 6: should be"),
        (IMAGES.astype(np.float32), "fog", 1, r"images: should be \[B, 32, 32, 3\] uint8, not \[2, 32, 32, 3\] float32"),
        (IMAGES[:, :16], "fog", 1, r"not \[2, 16, 32, 3\] uint8"),
    ],
)
def test_unknown_name_severity_or_images_are_refused(images, name, severity, words):
    with pytest.raises(ValueError, match=words):
        corrupt(images, name, severity, jax.random.key(0))


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_can_be_traced(name, severity):
    shape = jax.ShapeDtypeStruct((4, 32, 32, 3), np.uint8)
    assert jax.eval_shape(lambda images, key: corrupt(images, name, severity, key), shape, jax.random.key(0)) == shape


@pytest.mark.skipif(jax.device_count() < 2, reason="needs several devices")
@pytest.mark.parametrize("name", ["shot_noise", "motion_blur"])
def test_sharded_batch_gives_the_same_images_without_moving_them(name):
    images = np.random.default_rng(0).integers(0, 256, (2 * jax.device_count(), 32, 32, 3), dtype=np.uint8)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    arguments = {"static_argnums": (1, 2), "in_shardings": (split, whole), "out_shardings": split}
    compiled = jax.jit(corrupt, **arguments).lower(images, name, 5, jax.random.key(10)).compile()
    assert "all-gather" not in compiled.as_text()
    assert "all-to-all" not in compiled.as_text()
    result = compiled(images, jax.random.key(10))
    np.testing.assert_array_equal(result, run(images, name, 5, jax.random.key(10)))
