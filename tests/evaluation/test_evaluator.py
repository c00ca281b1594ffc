"""Counting every image once, and logits batch by batch."""

import jax
import numpy as np
import pytest
from flax import nnx

from wrn_jax.config import Model
from wrn_jax.data.loading import Split
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.evaluation.evaluator import Evaluator
from wrn_jax.models.network import Network
from wrn_jax.runtime import devices

NORMALISE = Normalisation((0.5,) * 3, (0.25,) * 3)


def random_weights(network):
    """Parameters and statistics of a network, drawn without compiling anything."""
    random = np.random.default_rng(0)

    def draw(leaf):
        if len(leaf.shape) == 1:
            return random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return (random.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)

    return jax.tree.map(draw, (network.params, network.batch_stats))


@pytest.fixture(scope="module")
def small():
    """A network's definition, parameters and statistics, 30 labelled images, and their logits."""
    network = Network(Model(depth=10, widen_factor=1), 10, "float32")
    params, stats = random_weights(network)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 32, 32, 3), np.uint8)
    labels = random.integers(0, 10, 30).astype(np.int32)
    forward = jax.jit(lambda params, stats, images: nnx.merge(network.graphdef, params, stats)(NORMALISE(images)))
    logits = np.asarray(forward(params, stats, images))
    return network.graphdef, params, stats, Split(images, labels), logits


def make(small, batch_size, num_devices):
    """An evaluator, and the weights on its devices."""
    mesh = devices.make_mesh(num_devices)
    return Evaluator(small[0], NORMALISE, batch_size, mesh), devices.replicate((small[1], small[2]), mesh)


BATCHES = pytest.mark.parametrize(("batch_size", "num_devices"), [(7, 1), (8, 8), (5, 8), (64, 1), (10, 1)])


@BATCHES
def test_every_image_counts_once_whatever_the_batch(small, batch_size, num_devices):
    evaluator, weights = make(small, batch_size, num_devices)
    found = evaluator(*weights, evaluator.put(small[3]))
    logits, labels = small[4].astype(np.float64), small[3].labels
    own = np.take_along_axis(logits, labels[:, None], 1)
    ranks = (logits > own).sum(1)
    losses = np.log(np.exp(logits).sum(1)) - own[:, 0]
    assert found["count"] == 30
    assert found["accuracy"] == pytest.approx((ranks == 0).mean())
    assert found["top5"] == pytest.approx((ranks < 5).mean())
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-5)


@BATCHES
def test_logits_of_every_image_once_in_order(small, batch_size, num_devices):
    evaluator, weights = make(small, batch_size, num_devices)
    parts = list(evaluator.logits(*weights, small[3].images))
    rounded = -(-batch_size // num_devices) * num_devices
    assert [len(part) for part in parts[:-1]] == [rounded] * (30 // rounded - (30 % rounded == 0))
    np.testing.assert_allclose(np.concatenate(parts), small[4], rtol=1e-4, atol=1e-5)
    assert np.concatenate(parts).dtype == np.float32


def test_logits_of_mirrored_views_and_of_nothing(small):
    evaluator, weights = make(small, 8, 1)
    mirrored = small[3].images[:, :, ::-1]
    (found,) = evaluator.logits(*weights, mirrored[:5])
    (expected,) = evaluator.logits(*weights, mirrored[:5].copy())
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - small[4][:5]).max() > 0.01
    assert list(evaluator.logits(*weights, small[3].images[:0])) == []


def test_two_batches_are_on_the_devices_at_a_time_and_one_program_runs_all(small, monkeypatch):
    evaluator, weights = make(small, 4, 1)
    placed, place = [], Evaluator._place
    monkeypatch.setattr(Evaluator, "_place", lambda self, array: placed.append(len(array)) or place(self, array))
    parts = evaluator.logits(*weights, small[3].images)
    next(parts)
    assert placed == [4, 4]
    list(parts)
    assert placed == [4] * 8
    assert evaluator._logits_step._cache_size() == 1


def test_an_evaluation_ends_at_the_next_batch_with_two_on_the_devices(small):
    evaluator, weights = make(small, 10, 1)
    evaluator.compile(*weights, evaluator.put(small[3]))
    begun, asked = [], iter([None, None, KeyboardInterrupt])
    step, evaluator._step = evaluator._step, lambda *arguments: begun.append(step(*arguments)) or begun[-1]

    def check():
        if error := next(asked):
            raise error

    with pytest.raises(KeyboardInterrupt):
        evaluator(*weights, evaluator.put(small[3]), check)
    assert len(begun) == 2
    assert begun[0]["count"].is_ready()
