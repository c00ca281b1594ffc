"""Mixup, smoothed cross-entropy and masked counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrn_jax.data.mixing import mix, mixup_weight
from wrn_jax.evaluation.evaluator import masked_counts
from wrn_jax.training.loss import mixed_correct, mixed_cross_entropy


@pytest.fixture
def logits():
    return jax.random.normal(jax.random.key(0), (6, 10))


def plain(logits, labels):
    return -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), np.asarray(labels)[:, None], 1)[:, 0]


def test_cross_entropy_is_the_weighted_sum_of_two(logits):
    first, second = jnp.arange(6), jnp.arange(6) + 3
    found = mixed_cross_entropy(logits, first, second, jnp.float32(0.7), jnp.float32(0.0))
    assert float(found) == pytest.approx(np.mean(0.7 * plain(logits, first) + 0.3 * plain(logits, second)), rel=1e-5)


def test_smoothing_spreads_over_all_classes(logits):
    labels = jnp.arange(6)
    found = mixed_cross_entropy(logits, labels, labels, jnp.float32(1.0), jnp.float32(0.1))
    uniform = -np.asarray(jax.nn.log_softmax(logits)).mean(-1)
    assert float(found) == pytest.approx(np.mean(0.9 * plain(logits, labels) + 0.1 * uniform), rel=1e-5)


def test_mix_and_counts():
    images = jnp.arange(3.0)[:, None]
    np.testing.assert_allclose(mix(images, jnp.array([2, 0, 1]), 0.75), [[0.5], [0.75], [1.75]])
    logits = jnp.eye(3)
    counted = mixed_correct(logits, jnp.array([0, 1, 0]), jnp.array([1, 2, 2]), jnp.float32(0.75))
    assert float(counted) == pytest.approx(0.75 + 0.75 + 0.25)


class TestMixupWeight:
    def test_alpha_zero_is_off(self):
        assert float(mixup_weight(jax.random.key(0), jnp.float32(0))) == 1.0

    @pytest.mark.parametrize("alpha", [0.15, 0.2, 1.0])
    def test_follows_the_beta_distribution(self, alpha):
        draws = jax.vmap(lambda key: mixup_weight(key, jnp.float32(alpha)))(jax.random.split(jax.random.key(1), 4000))
        assert float(draws.mean()) == pytest.approx(0.5, abs=0.03)
        assert float(draws.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)
        assert bool(jnp.isfinite(draws).all())


def test_masked_counts_ignore_padding_and_count_top_five():
    logits = jnp.tile(jnp.arange(10.0), (4, 1))
    found = masked_counts(logits, jnp.array([9, 5, 4, 9]), jnp.array([1.0, 1, 1, 0]))
    assert {name: float(found[name]) for name in ("correct", "top5", "count")} == {"correct": 1, "top5": 2, "count": 3}
    assert float(found["loss"]) == pytest.approx(plain(logits[:3], [9, 5, 4]).sum(), rel=1e-5)


def test_masked_counts_find_nothing_right_in_nan():
    found = masked_counts(jnp.full((2, 10), jnp.nan), jnp.array([0, 1]), jnp.ones(2))
    assert (float(found["correct"]), float(found["top5"])) == (0, 0)
    assert np.isnan(float(found["loss"]))
