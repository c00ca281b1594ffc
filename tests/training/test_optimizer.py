"""The order of the chain, and dynamic loss scaling."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wrn_jax.config import Optimizer
from wrn_jax.training.optimizer import GROWTH_INTERVAL, SCALE_INITIAL, LossScale, make_optimizer


def run(config, gradients, rates, start):
    """Updates `start` by the gradients in turn with Optax, and with the formula of the reference in NumPy."""
    optimizer = make_optimizer(config)
    params, buffer, plain = {"w": jnp.asarray(start)}, np.zeros_like(start), start.copy()
    state = optimizer.init(params)
    for gradient, rate in zip(gradients, rates, strict=True):
        updates, state = optimizer.update({"w": jnp.asarray(gradient)}, state, params, learning_rate=jnp.float32(rate))
        params = optax.apply_updates(params, updates)
        norm = np.linalg.norm(gradient)
        clipped = gradient if config.clip_norm is None else gradient * min(1, config.clip_norm / norm)
        buffer = config.momentum * buffer + clipped + config.weight_decay * plain
        plain = plain - rate * buffer
    return np.asarray(params["w"]), plain


@pytest.mark.parametrize("clip_norm", [1.0, None])
def test_clip_then_decay_then_momentum_then_rate(clip_norm):
    random = np.random.default_rng(0)
    gradients = [scale * random.normal(size=5).astype(np.float32) for scale in (10, 0.1, 3, 0.01)]
    config = Optimizer(momentum=0.9, weight_decay=0.1, clip_norm=clip_norm)
    found, expected = run(config, gradients, [0.1, 0.2, 0.05, 0.1], random.normal(size=5).astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


class TestLossScale:
    def test_starts_high_only_for_float16(self):
        assert float(LossScale.create("float16").scale) == SCALE_INITIAL
        assert float(LossScale.create("bfloat16").scale) == 1.0

    def test_halves_at_once_and_doubles_after_a_period(self):
        scale = LossScale.create("float16").adjust(jnp.bool_(False))
        assert (float(scale.scale), int(scale.good_steps)) == (SCALE_INITIAL / 2, 0)
        almost = LossScale(scale.scale, jnp.int32(GROWTH_INTERVAL - 2)).adjust(jnp.bool_(True))
        assert (float(almost.scale), int(almost.good_steps)) == (SCALE_INITIAL / 2, GROWTH_INTERVAL - 1)
        grown = almost.adjust(jnp.bool_(True))
        assert (float(grown.scale), int(grown.good_steps)) == (SCALE_INITIAL, 0)
