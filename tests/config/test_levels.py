"""Levels in words."""

import dataclasses

import pytest

from wrn_jax.config import LEVELS, Strengths, load_file
from wrn_jax.config.levels import in_words


@pytest.mark.parametrize(("strengths", "words"), [
    (LEVELS["off"], "nothing"),
    (LEVELS["minimal"], "flip 50 %, cutout 4 in 30 %"),
    (load_file("base").augmentation_levels["crop"], "crop 4 mirrored, flip 50 %"),
    (load_file("trivial").augmentation_levels["trivial"], "TrivialAugment wide, crop 4, flip 50 %, mean cutout 16"),
    (
        LEVELS["reduced"],
        "flip 50 %, shift 5 % + scale 7 % + rotate 10° in 35 %, cutout 6 in 35 %, brightness 15 % + contrast 15 % in 20 %",
    ),
    (
        Strengths(randaugment_probability=0.5, randaugment_operations=1.5, randaugment_magnitude=9.0, wide_ranges=0.25),
        "RandAugment(1.5, 9) 25 % wide in 50 %",
    ),
    (Strengths(cutout_size=8.0, holes_probability=0.5, holes_largest=0.2), "cutout 8 in 0 %, holes of 0 % to 20 % in 50 %"),
    (Strengths(affine_probability=1.0, rotate=5.0, color_probability=1.0, hue=9.0), "rotate 5°, hue 9"),
])  # fmt: skip
def test_a_level_in_words(strengths, words):
    assert in_words(strengths) == words


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Strengths)])
def test_every_strength_is_in_the_words(name):
    some = Strengths(*(0.5 for _ in dataclasses.fields(Strengths)))
    assert len({in_words(dataclasses.replace(some, **{name: value})) for value in (0.0, 0.5, 0.75, 1.0)}) == 4
