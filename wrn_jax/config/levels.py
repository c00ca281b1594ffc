"""Augmentation levels: how strongly the images are changed, by name."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Strengths:
    """How strongly `augment` acts: numbers or float32 scalars. A change is drawn uniformly from -strength..strength."""

    flip_probability: float = 0.0  # of a horizontal flip
    affine_probability: float = 0.0  # of one warp that shifts, scales and rotates
    shift: float = 0.0  # fraction of the side, drawn for each axis
    scale: float = 0.0  # 0.1: a factor in 0.9..1.1
    rotate: float = 0.0  # degrees
    cutout_probability: float = 0.0  # of one black square
    cutout_size: float = 0.0  # side of the square in pixels, rounded to a whole number
    holes_probability: float = 0.0  # of one or two black rectangles
    holes_smallest: float = 0.0  # shortest side of a rectangle as a fraction of the image's
    holes_largest: float = 0.0  # longest side likewise
    brightness_contrast_probability: float = 0.0  # of a change of both
    brightness: float = 0.0  # fraction of 255 that is added
    contrast: float = 0.0  # 0.2: a factor in 0.8..1.2
    color_probability: float = 0.0  # of a change of hue, saturation and value together
    hue: float = 0.0  # OpenCV's uint8 units: 180 is the full circle
    saturation: float = 0.0  # OpenCV's uint8 units: 255 is full saturation
    value: float = 0.0  # levels of 255
    trivial_probability: float = 0.0  # of one operation of TrivialAugment at a strength drawn from 0..30
    randaugment_probability: float = 0.0  # of RandAugment
    randaugment_operations: float = 0.0  # how many; 1.5: one or two, each for half of the images
    randaugment_magnitude: float = 0.0  # their strength of 30, rounded to a whole number
    wide_ranges: float = 0.0  # share of the images with the wide ranges of either; the others have the standard ones
    crop_probability: float = 0.0  # of a crop after padding
    crop_padding: float = 0.0  # pixels on every side, rounded to a whole number
    crop_reflection: float = 0.0  # share of the crops whose padding is the mirror image; the others have black
    mean_cutout_probability: float = 0.0  # of one square in the mean colour, whose centre is any pixel
    mean_cutout_size: float = 0.0  # its side in pixels, rounded to a whole number


LEVELS: dict[str, Strengths] = {
    "off": Strengths(),
    "minimal": Strengths(flip_probability=0.5, cutout_probability=0.3, cutout_size=4.0),
    "reduced": Strengths(
        flip_probability=0.5,
        affine_probability=0.35,
        shift=0.05,
        scale=0.07,
        rotate=10.0,
        cutout_probability=0.35,
        cutout_size=6.0,
        brightness_contrast_probability=0.2,
        brightness=0.15,
        contrast=0.15,
    ),
    "full": Strengths(
        flip_probability=0.5,
        affine_probability=0.5,
        shift=0.0625,
        scale=0.1,
        rotate=15.0,
        cutout_probability=0.5,
        cutout_size=8.0,
        brightness_contrast_probability=0.3,
        brightness=0.2,
        contrast=0.2,
        color_probability=0.3,
        hue=10.0,
        saturation=20.0,
        value=10.0,
    ),
}


def in_words(strengths: Strengths) -> str:
    """What a level does, in the order in which it is done, as in "TrivialAugment wide, crop 4, flip 50 %, cutout 8 in 30 %".

    Sizes are in pixels. Strengths that are 0 are left out, and so is the share of the images where it is all of them.
    """
    s = strengths

    def together(*names: str) -> str:
        """The changes that are drawn together, or the name of the first."""
        texts = [f"{name} {_amount(name, getattr(s, name))}" for name in names if getattr(s, name)]
        return " + ".join(texts) or names[0]

    ranges = _partly("wide", s.wide_ranges) or "standard"
    crop = f"crop {s.crop_padding:g} {_partly('mirrored', s.crop_reflection)}".rstrip()
    holes = f"holes of {_percent(s.holes_smallest)} to {_percent(s.holes_largest)}"
    operations = (
        (f"TrivialAugment {ranges}", s.trivial_probability, ()),
        (
            f"RandAugment({s.randaugment_operations:g}, {s.randaugment_magnitude:g}) {ranges}",
            s.randaugment_probability,
            (s.randaugment_operations, s.randaugment_magnitude),
        ),
        (crop, s.crop_probability, (s.crop_padding, s.crop_reflection)),
        ("flip", s.flip_probability, ()),
        (together("shift", "scale", "rotate"), s.affine_probability, (s.shift, s.scale, s.rotate)),
        (f"cutout {s.cutout_size:g}", s.cutout_probability, (s.cutout_size,)),
        (holes, s.holes_probability, (s.holes_smallest, s.holes_largest)),
        (together("brightness", "contrast"), s.brightness_contrast_probability, (s.brightness, s.contrast)),
        (together("hue", "saturation", "value"), s.color_probability, (s.hue, s.saturation, s.value)),
        (f"mean cutout {s.mean_cutout_size:g}", s.mean_cutout_probability, (s.mean_cutout_size,)),
    )
    texts = [
        text if probability == 1 else f"{text}{' in' * (' ' in text)} {_percent(probability)}"
        for text, probability, sizes in operations
        if probability or any(sizes)
    ]
    return ", ".join(texts) or "nothing"


def _amount(name: str, value: float) -> str:
    """A strength with its unit; those of colour are levels."""
    if name == "rotate":
        return f"{value:g}°"
    return _percent(value) if name in ("shift", "scale", "brightness", "contrast") else f"{value:g}"


def _partly(text: str, share: float) -> str:
    """As in "wide", "50 % wide"; empty for a share of 0."""
    return text if share == 1 else f"{_percent(share)} {text}" if share else ""


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def by_strength(levels: Mapping[str, Strengths]) -> list[str]:
    """Names of levels, the weakest first: by all strengths, each as a share of the highest among these levels."""
    table = np.array([dataclasses.astuple(strengths) for strengths in levels.values()], float)
    order = np.argsort((table / np.maximum(table.max(axis=0), 1e-9)).sum(axis=1), kind="stable")
    return [list(levels)[place] for place in order]
