"""Counting every image once, logits batch by batch, and corrupted images drawn or read."""

import io
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.fake_cifar import one_line
from wrn_jax.config import Model
from wrn_jax.data import corruptions
from wrn_jax.data.loading import Split
from wrn_jax.data.normalisation import Normalisation
from wrn_jax.evaluation import evaluator
from wrn_jax.evaluation.evaluator import Evaluator
from wrn_jax.models.network import Network
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import UserError

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


class TestDraw:
    @pytest.fixture(autouse=True)
    def _small_blocks(self, monkeypatch):
        monkeypatch.setattr(evaluator, "BLOCK", 4)

    def test_blocks_do_not_matter_to_the_images_before_and_differ(self):
        images = np.full((10, 32, 32, 3), 100, np.uint8)
        found = evaluator.draw(images, "gaussian_noise", 3)
        assert (found.shape, found.dtype) == ((10, 32, 32, 3), np.uint8)
        np.testing.assert_array_equal(evaluator.draw(images[:6], "gaussian_noise", 3), found[:6])
        assert len({image.tobytes() for image in found}) == 10
        assert found.std() == pytest.approx(255 * 0.08, rel=0.02)

    def test_draws_differ_by_name_and_severity(self):
        images = np.full((1, 32, 32, 3), 100, np.uint8)
        found = [
            evaluator.draw(images, name, severity).astype(int).ravel()
            for name, severity in (("gaussian_noise", 2), ("gaussian_noise", 3), ("speckle_noise", 3))
        ]
        correlations = np.corrcoef(found)
        assert np.abs(correlations - np.eye(3)).max() < 0.1

    def test_all_that_there_are(self, monkeypatch):
        some = {name: corruptions.CORRUPTIONS[name] for name in ("contrast", "saturate")}
        monkeypatch.setattr(corruptions, "CORRUPTIONS", some)
        test = Split(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8), np.arange(5, dtype=np.int32))
        found = evaluator.drawn(test, 3)
        assert found.exact == {"contrast": True, "saturate": True}
        assert (found.count, found.total, found.labels.tolist()) == (3, 5, [0, 1, 2])
        expected = corruptions.corrupt(jnp.asarray(test.images[:3]), "contrast", 2, jax.random.key(0))  # draws nothing
        np.testing.assert_array_equal(found.images("contrast", 2), expected)

    def test_every_corruption_is_in_the_benchmark_or_known_not_to_be(self):
        in_mean = {name for name, counts in evaluator.IN_BENCHMARK.items() if counts}
        assert len(in_mean) == 15
        assert set(evaluator.IN_BENCHMARK) - in_mean == {"speckle_noise", "gaussian_blur", "spatter", "saturate"}


TEST = Split(np.zeros((4, 32, 32, 3), np.uint8), np.array([0, 1, 2, 1], np.int32))
LABELS = np.tile(np.array([2, 1, 0, 1]), 5)


def archive(array):
    """The bytes of a .npz file."""
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


class TestStored:
    """A test set of four images in the place of 10,000."""

    @pytest.fixture
    def folder(self, tmp_path):
        images = np.repeat(np.arange(20, dtype=np.uint8), 32 * 32 * 3).reshape(20, 32, 32, 3)
        np.save(tmp_path / "fog.npy", images)
        np.save(tmp_path / "spatter.npy", images + 100)
        np.save(tmp_path / "labels.npy", LABELS)
        (tmp_path / "README").write_text("of no interest")
        return tmp_path

    def test_severities_are_blocks(self, folder):
        found = evaluator.stored(folder, TEST, 3)
        assert found.exact == {"fog": True, "spatter": True}
        assert (found.count, found.total, found.labels.tolist()) == (3, 4, [2, 1, 0])
        assert found.origin == f"{folder.name} at {folder}"
        assert found.images("fog", 1)[:, 0, 0, 0].tolist() == [0, 1, 2]
        assert found.images("spatter", 5)[:, 31, 31, 2].tolist() == [116, 117, 118]

    def test_labels_of_one_severity_serve(self, folder):
        np.save(folder / "labels.npy", LABELS[:4].astype(np.uint8))
        assert evaluator.stored(folder, TEST, 4).labels.tolist() == [2, 1, 0, 1]

    @pytest.mark.parametrize(
        ("file", "content", "message"),
        [
            ("fog.npy", np.zeros((20, 3, 32, 32), np.uint8), r"holds \(20, 3, 32, 32\) uint8; should hold \(20, 32, 32, 3\)"),
            ("fog.npy", np.zeros((20, 32, 32, 3)), "float64; should hold"),
            ("fog.npy", np.zeros((50, 32, 32, 3), np.uint8), r"holds \(50, 32, 32, 3\)"),
            ("labels.npy", LABELS[:7], r"holds \(7,\) int64; should hold \(20,\) or \(4,\) integers"),
            ("labels.npy", LABELS.astype(float), "float64; should hold"),
            ("labels.npy", np.zeros(20, int), "other labels than the test set"),
            ("labels.npy", np.array([None] * 20), "cannot be read as a NumPy array"),
            ("labels.npy", pickle.dumps(LABELS), "cannot be read as a NumPy array"),
            ("labels.npy", archive(LABELS), "cannot be read as a NumPy array"),
            ("labels.npy", b"PK\x03\x04", "cannot be read as a NumPy array"),
            ("labels.npy", b"\x93NUMPY", "cannot be read as a NumPy array"),
            ("labels.npy", b"", "cannot be read as a NumPy array"),
            ("labels.npy", None, "cannot be read as a NumPy array"),
        ],
    )
    def test_refuses_what_is_not_it(self, folder, file, content, message):
        if isinstance(content, np.ndarray):
            np.save(folder / file, content, allow_pickle=True)
        elif content is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(content)
        with pytest.raises(UserError, match=message) as error:
            evaluator.stored(folder, TEST, 4)
        assert one_line(error).startswith(f"{folder / file}: ")

    def test_no_folder_and_an_empty_one(self, tmp_path):
        with pytest.raises(UserError, match="there is no such directory"):
            evaluator.stored(tmp_path / "nowhere", TEST, 4)
        with pytest.raises(UserError, match="holds no corruption; should hold CIFAR-100-C"):
            evaluator.stored(tmp_path, TEST, 4)
