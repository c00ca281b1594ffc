"""Choosing a checkpoint, and counting every image once."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wrn_jax import evaluate
from wrn_jax import mesh as meshes
from wrn_jax.checkpoints import Saved
from wrn_jax.config import Model
from wrn_jax.data import Split
from wrn_jax.errors import UserError
from wrn_jax.evaluation import Evaluator
from wrn_jax.state import Network, split
from wrn_jax.step import Normalisation

SAVED = [Saved(10, 1, 0.2), Saved(20, 2, 0.5), Saved(40, 4, 0.5), Saved(50, 5, 0.4), Saved(57, 5, None)]


class TestChoose:
    @pytest.mark.parametrize(("which", "epoch"), [("best", 2), ("4", 4), ("5", 5)])
    def test_finds_the_end_of_an_epoch(self, which, epoch):
        assert evaluate.choose(SAVED, which, Path("run")).step == 10 * epoch

    def test_last_may_lie_within_an_epoch(self):
        assert evaluate.choose(SAVED, "last", Path("run")).step == 57

    def test_no_best_within_the_first_epoch(self):
        with pytest.raises(UserError, match="no epoch is finished yet"):
            evaluate.choose([Saved(3, 0, None)], "best", Path("run"))

    @pytest.mark.parametrize(
        ("which", "message"),
        [("3", "not kept; there are epochs 1, 2, 4, 5"), ("lats", "should be best, last or the number of an epoch")],
    )
    def test_says_what_there_is(self, which, message):
        with pytest.raises(UserError, match=message):
            evaluate.choose(SAVED, which, Path("run"))

    def test_nothing_there(self):
        with pytest.raises(UserError, match="holds no complete checkpoint"):
            evaluate.choose([], "best", Path("run"))


@pytest.mark.parametrize(("batch_size", "devices"), [(7, 1), (8, 8), (5, 8), (64, 1)])
def test_every_image_counts_once_whatever_the_batch(batch_size, devices):
    network = Network(Model(depth=10, widen_factor=1), 10, "float32")
    _, params, stats = split(network._build(jax.random.key(0)))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 32, 32, 3), np.uint8)
    labels = random.integers(0, 10, 30).astype(np.int32)
    normalise = Normalisation((0.5,) * 3, (0.25,) * 3)
    mesh = meshes.make_mesh(devices)
    evaluator = Evaluator(network.graphdef, normalise, batch_size, mesh)
    params, stats = meshes.replicate((params, stats), mesh)
    found = evaluator(params, stats, evaluator.put(Split(images, labels)))

    from flax import nnx

    one = lambda tree: jax.device_put(tree, jax.devices()[0])  # noqa: E731
    logits = np.asarray(nnx.merge(network.graphdef, one(params), one(stats))(normalise(jnp.asarray(images))), np.float64)
    ranks = (logits > np.take_along_axis(logits, labels[:, None], 1)).sum(1)
    losses = np.log(np.exp(logits).sum(1)) - np.take_along_axis(logits, labels[:, None], 1)[:, 0]
    assert found["count"] == 30
    assert found["accuracy"] == pytest.approx((ranks == 0).mean())
    assert found["top5"] == pytest.approx((ranks < 5).mean())
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-5)
