"""The table of data sets: its names, its superclasses, and the sizes that the configuration decides."""

from typing import get_args

import pytest

from wrn_jax.config import Data
from wrn_jax.config.datasets import DATASETS, DatasetName, info


def test_every_name_can_be_configured():
    assert get_args(DatasetName) == tuple(DATASETS) == tuple(known.name for known in DATASETS.values())


@pytest.mark.parametrize("name", DATASETS)
def test_classes_divide_the_images_and_superclasses_the_classes(name):
    known = DATASETS[name]
    assert known.num_train % known.num_classes == known.num_test % known.num_classes == 0
    assert known.class_names is None or len(set(known.class_names)) == known.num_classes
    assert len(known.superclass_of) == (known.num_classes if known.superclasses else 0)


def test_only_the_drawn_set_has_the_configured_sizes():
    sizes = {"embedded_train": 300, "embedded_test": 200}
    drawn = info(Data(name="embedded", **sizes))
    assert (drawn.num_train, drawn.num_test, drawn.size("train"), drawn.size("test")) == (300, 200, 300, 200)
    assert info(Data(name="cifar10", **sizes)) is DATASETS["cifar10"]


def test_superclasses_of_cifar100():
    known = DATASETS["cifar100"]
    names = list(known.superclasses)
    assert (len(names), {len(classes) for classes in known.superclasses.values()}) == (20, {5})
    assert names == sorted(names)
    assert {known.superclass_of.count(index) for index in range(20)} == {5}
    # The labels of apple and wolf are the first and one of the last three.
    assert names[known.superclass_of[0]] == "fruit_and_vegetables"
    assert names[known.superclass_of[97]] == "large_carnivores"


def test_superclasses_of_the_drawn_set_are_its_shapes():
    known = DATASETS["embedded"]
    shapes = [list(known.superclasses)[index] for index in known.superclass_of]
    assert shapes == [name.split("-")[0] for name in known.class_names]
