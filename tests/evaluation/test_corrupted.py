"""Corrupted test images: what is drawn, and files of CIFAR-100-C."""

import io
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fake_cifar import one_line
from wrn_jax.data import corruptions
from wrn_jax.data.loading import Split
from wrn_jax.evaluation import corrupted
from wrn_jax.runtime.errors import UserError


class TestDraw:
    @pytest.fixture(autouse=True)
    def _small_blocks(self, monkeypatch):
        monkeypatch.setattr(corrupted, "BLOCK", 4)

    def test_blocks_do_not_matter_to_the_images_before_and_differ(self):
        images = np.full((10, 32, 32, 3), 100, np.uint8)
        found = corrupted.draw(images, "gaussian_noise", 3)
        assert (found.shape, found.dtype) == ((10, 32, 32, 3), np.uint8)
        np.testing.assert_array_equal(corrupted.draw(images[:6], "gaussian_noise", 3), found[:6])
        assert len({image.tobytes() for image in found}) == 10
        assert found.std() == pytest.approx(255 * 0.08, rel=0.02)

    def test_draws_differ_by_name_and_severity(self):
        images = np.full((1, 32, 32, 3), 100, np.uint8)
        found = [
            corrupted.draw(images, name, severity).astype(int).ravel()
            for name, severity in (("gaussian_noise", 2), ("gaussian_noise", 3), ("speckle_noise", 3))
        ]
        correlations = np.corrcoef(found)
        assert np.abs(correlations - np.eye(3)).max() < 0.1

    def test_all_that_there_are(self, monkeypatch):
        some = {name: corruptions.CORRUPTIONS[name] for name in ("contrast", "saturate")}
        monkeypatch.setattr(corruptions, "CORRUPTIONS", some)
        test = Split(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8), np.arange(5, dtype=np.int32))
        found = corrupted.drawn(test, 3)
        assert found.kinds == ("contrast", "saturate")
        assert (found.count, found.total, found.labels.tolist()) == (3, 5, [0, 1, 2])
        expected = corruptions.corrupt(jnp.asarray(test.images[:3]), "contrast", 2, jax.random.key(0))  # draws nothing
        np.testing.assert_array_equal(found.images("contrast", 2), expected)

    def test_every_corruption_is_in_the_benchmark_or_known_not_to_be(self):
        in_mean = {name for name, counts in corrupted.IN_BENCHMARK.items() if counts}
        assert len(in_mean) == 15
        assert set(corrupted.IN_BENCHMARK) - in_mean == {"speckle_noise", "gaussian_blur", "spatter", "saturate"}


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
        found = corrupted.stored(folder, TEST, 3)
        assert found.kinds == ("fog", "spatter")
        assert (found.count, found.total, found.labels.tolist()) == (3, 4, [2, 1, 0])
        assert found.origin == f"{folder.name} at {folder}"
        assert found.images("fog", 1)[:, 0, 0, 0].tolist() == [0, 1, 2]
        assert found.images("spatter", 5)[:, 31, 31, 2].tolist() == [116, 117, 118]

    def test_labels_of_one_severity_serve(self, folder):
        np.save(folder / "labels.npy", LABELS[:4].astype(np.uint8))
        assert corrupted.stored(folder, TEST, 4).labels.tolist() == [2, 1, 0, 1]

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
            corrupted.stored(folder, TEST, 4)
        assert one_line(error).startswith(f"{folder / file}: ")

    def test_no_folder_and_an_empty_one(self, tmp_path):
        with pytest.raises(UserError, match="there is no such directory"):
            corrupted.stored(tmp_path / "nowhere", TEST, 4)
        with pytest.raises(UserError, match="holds no corruption; should hold CIFAR-100-C"):
            corrupted.stored(tmp_path, TEST, 4)
