"""CutMix's boxes against the published code's arithmetic, and how pixels and labels are weighted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrn_jax.data.mixing import box_of, cutmix_box, mix


def published_box(share, y, x, height, width):
    """The slices of clovaai/CutMix-PyTorch, whose lambda is 1 - `share`."""
    ratio = np.sqrt(share)
    cut_height, cut_width = int(height * ratio), int(width * ratio)
    box = np.zeros((height, width), bool)
    top, bottom = np.clip([y - cut_height // 2, y + cut_height // 2], 0, height)
    left, right = np.clip([x - cut_width // 2, x + cut_width // 2], 0, width)
    box[top:bottom, left:right] = True
    return box


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.3, 0.5, 0.77, 0.999, 1.0])
def test_boxes_are_the_published_ones(share):
    for y, x in [(0, 0), (5, 27), (16, 16), (31, 20), (31, 2)]:
        found = box_of(jnp.float32(share), jnp.int32(y), jnp.int32(x), 32, 28)
        np.testing.assert_array_equal(found, published_box(np.float32(share), y, x, 32, 28))


@pytest.mark.slow
def test_boxes_have_the_drawn_distribution():
    keys = jax.random.split(jax.random.key(0), 4000)
    areas = jax.vmap(lambda key: cutmix_box(key, jnp.float32(1.0), 32, 32).mean())(keys)
    random = np.random.default_rng(0)
    expected = [
        published_box(random.beta(1, 1), *random.integers(0, 32, 2), 32, 32).mean() for _ in range(4000)
    ]  # fmt: skip
    assert float(areas.mean()) == pytest.approx(np.mean(expected), abs=0.015)
    assert float(areas.std()) == pytest.approx(np.std(expected), abs=0.015)


def test_a_box_takes_the_partners_pixels():
    images = jnp.arange(2 * 4 * 4 * 3, dtype=jnp.uint8).reshape(2, 4, 4, 3)
    own = ~box_of(jnp.float32(0.25), jnp.int32(1), jnp.int32(2), 4, 4)
    mixed = np.asarray(mix(images, jnp.array([1, 0]), own[None, :, :, None].astype(jnp.float32)))
    assert float(own.mean()) == 0.75
    expected = np.array(images)
    expected[:, 0:2, 1:3] = expected[::-1, 0:2, 1:3]
    np.testing.assert_array_equal(mixed, expected)
