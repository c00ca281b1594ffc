"""The data set drawn by code: same bytes everywhere, balanced, and its classes are where they should be."""

import hashlib

import numpy as np
import pytest

from wrn_jax.config.datasets import DATASETS
from wrn_jax.data import drawn_shapes

INFO = DATASETS["embedded"]


@pytest.fixture(scope="module")
def drawn():
    return drawn_shapes.draw(3000, 1000, 0)


def test_arrays_have_the_form_of_cifar(drawn):
    for (images, labels), count in zip(drawn, (3000, 1000), strict=True):
        assert images.shape == (count, 32, 32, 3)
        assert images.dtype == np.uint8
        assert labels.shape == (count,)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(np.bincount(labels), [count // 100] * 100)
        assert (np.diff(labels) != 1).mean() > 0.9  # classes come in no order


def test_odd_numbers_are_balanced_to_one():
    (_, train), (_, test) = drawn_shapes.draw(250, 99, 0)
    assert sorted(np.bincount(train, minlength=100)) == [2] * 50 + [3] * 50
    assert sorted(np.bincount(test, minlength=100)) == [0] + [1] * 99


def test_bytes_are_the_same_on_every_machine():
    arrays = [array for split in drawn_shapes.draw(300, 100, 7) for array in split]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    assert digest == "99f6543cf4e8eb4a0bec4036fd12cfdb2a61d4c1975804df7c50713bbc7755fe"


def test_images_do_not_depend_on_how_many_are_drawn(drawn):
    few = drawn_shapes.draw(150, 30, 0)
    for (images, labels), (more_images, more_labels) in zip(few, drawn, strict=True):
        np.testing.assert_array_equal(images, more_images[: len(images)])
        np.testing.assert_array_equal(labels, more_labels[: len(labels)])


def test_seed_and_split_change_every_image():
    (train, _), (test, _) = drawn_shapes.draw(100, 100, 3)
    (other, _), _ = drawn_shapes.draw(100, 1, 4)
    distinct = {image.tobytes() for images in (train, test, other) for image in images}
    assert len(distinct) == 300


@pytest.mark.parametrize("arguments", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_impossible_requests_are_refused(arguments):
    with pytest.raises(ValueError, match="must"):
        drawn_shapes.draw(*arguments)


def test_class_names_are_shape_and_texture():
    assert len(set(INFO.class_names)) == INFO.num_classes == 100
    assert INFO.class_names[0] == "circle-plain"
    assert INFO.class_names[12] == "square-barred"


def test_normalisation_constants_fit(drawn):
    pixels = drawn[0][0].reshape(-1, 3) / 255
    np.testing.assert_allclose(pixels.mean(0), INFO.mean, atol=0.01)
    np.testing.assert_allclose(pixels.std(0), INFO.std, atol=0.01)


def edges(images):
    """How steep the grey levels are across, down and along both, in a 6x6 grid of cells: [N, 109]."""
    grey = images.astype(np.float32).mean(3) / 255
    across, down = np.abs(np.diff(grey, axis=2))[:, :30, :30], np.abs(np.diff(grey, axis=1))[:, :30, :30]
    cells = [plane.reshape(-1, 6, 5, 6, 5).mean((2, 4)) for plane in (across, down, np.minimum(across, down))]
    return with_one(np.concatenate([plane.reshape(len(images), -1) for plane in cells], axis=1))


def colours(images):
    """Mean colour, [N, 7]."""
    mean = images.astype(np.float32).mean((1, 2)) / 255
    return with_one(np.concatenate([mean, mean * mean], axis=1))


def with_one(features):
    return np.concatenate([features / features.std(), np.ones((len(features), 1))], axis=1)


def accuracy(features, drawn, of_label=lambda label: label):
    """Test accuracy of a linear classifier fitted to the training set by least squares."""
    (train, train_labels), (test, test_labels) = drawn
    inputs, targets = features(train), np.eye(100)[of_label(train_labels)]
    weights = np.linalg.solve(inputs.T @ inputs + np.eye(inputs.shape[1]), inputs.T @ targets)
    return ((features(test) @ weights).argmax(1) == of_label(test_labels)).mean()


def test_class_shows_in_edges_but_not_in_colours(drawn):
    assert 0.1 < accuracy(edges, drawn) < 0.5
    assert accuracy(colours, drawn) < 0.03


def test_mirroring_keeps_the_class(drawn):
    """A classifier fitted to images as drawn is as good on mirrored ones."""
    (train, train_labels), (test, test_labels) = drawn
    mirrored = (train, train_labels), (test[:, :, ::-1], test_labels)
    for part in (lambda label: label // 10, lambda label: label % 10):
        assert accuracy(edges, mirrored, part) > accuracy(edges, drawn, part) - 0.04 > 0.3
