"""The order of the chain, and dynamic loss scaling."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wrn_jax.config import Optimizer
from wrn_jax.training.optimizer import GROWTH_INTERVAL, SCALE_INITIAL, LossScale, make_optimizer


def run(config, gradients, rates, start, momentum, decay):
    """Updates `start` by the gradients in turn with the chain, and with PyTorch's formula in NumPy."""
    optimizer = make_optimizer(config)
    params = {"conv1": {"kernel": jnp.asarray(start)}, "bn1": {"scale": jnp.asarray(start)}}
    buffers, plain = {name: np.zeros_like(start) for name in params}, {name: start.copy() for name in params}
    state = optimizer.init(params)
    for gradient, rate in zip(gradients, rates, strict=True):
        moving = {"learning_rate": rate, "momentum": momentum, "weight_decay": decay}
        tree = {"conv1": {"kernel": jnp.asarray(gradient)}, "bn1": {"scale": jnp.asarray(gradient)}}
        traced = {name: jnp.float32(value) for name, value in moving.items()}
        updates, state = optimizer.update(tree, state, params, **traced)
        params = optax.apply_updates(params, updates)
        norm = np.linalg.norm([gradient, gradient])
        clipped = gradient if config.clip_norm is None else gradient * min(1, config.clip_norm / norm)
        for name, weights in plain.items():
            decayed = clipped + (decay * weights if name == "conv1" or config.decay == "all" else 0)
            buffers[name] = momentum * buffers[name] + decayed
            plain[name] = weights - rate * (decayed + momentum * buffers[name] if config.nesterov else buffers[name])
    return [*params["conv1"].values(), *params["bn1"].values()], list(plain.values())


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", ["all", "kernels"])
@pytest.mark.parametrize("clip_norm", [1.0, None])
def test_clip_then_decay_then_momentum_then_rate(clip_norm, decay, nesterov):
    random = np.random.default_rng(0)
    gradients = [scale * random.normal(size=5).astype(np.float32) for scale in (10, 0.1, 3, 0.01)]
    config = Optimizer(nesterov=nesterov, decay=decay, clip_norm=clip_norm)
    start = random.normal(size=5).astype(np.float32)
    found, expected = run(config, gradients, [0.1, 0.2, 0.05, 0.1], start, momentum=0.8, decay=0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_is_sgd_of_optax(nesterov):
    random = np.random.default_rng(1)
    params = {"kernel": jnp.asarray(random.normal(size=7), jnp.float32)}
    ours = make_optimizer(Optimizer(nesterov=nesterov, clip_norm=None))
    theirs = optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9, nesterov=nesterov))
    states, trees = [ours.init(params), theirs.init(params)], [params, params]
    moving = {"learning_rate": jnp.float32(0.1), "momentum": jnp.float32(0.9), "weight_decay": jnp.float32(1e-2)}
    for _ in range(5):
        gradient = {"kernel": jnp.asarray(random.normal(size=7), jnp.float32)}
        for index, (optimizer, options) in enumerate(((ours, moving), (theirs, {}))):
            updates, states[index] = optimizer.update(gradient, states[index], trees[index], **options)
            trees[index] = optax.apply_updates(trees[index], updates)
    np.testing.assert_allclose(trees[0]["kernel"], trees[1]["kernel"], rtol=1e-6)


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
