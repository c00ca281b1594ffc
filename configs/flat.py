"""Augmentation, mixup and dropout at one strength throughout: what `rising` and `falling` stand against (WRN-16-1, 30 epochs).

    python -m wrn_jax.train --config flat

Which way should strength move during a run? Session 04 lets it fall, EfficientNetV2 lets it rise, and nobody has published a
comparison at equal strength. These three recipes have it: in each third of the run another strength, in `flat` the middle one,
so that the sums over the run are the same. Rate, length, crop and flip are those of `small30`, and so is the cost, 2.16e+14
operations. A network as small as WRN-16-1 has little room for strong augmentation, so what comes out need not hold for wider
ones (`--config.model.widen_factor=2`). Not run here.
"""

import dataclasses

from wrn_jax.config import load_file

small30 = load_file("small30.py", relative_to=__file__)
crop = dataclasses.replace(small30.augmentation_levels["crop"], mean_cutout_probability=0.0)


def level(probability):
    """Crop and flip for all images; TrivialAugment, and a square in the mean colour, each for this share of them."""
    return dataclasses.replace(crop, trivial_probability=probability, mean_cutout_probability=probability)


config = small30.override(
    {
        "recipe.dropout": 0.1,
        "recipe.mixup_alpha": 0.2,
        "recipe.augmentation": "middle",
        "augmentation_levels": {"weak": level(0.25), "middle": level(0.5), "strong": level(0.75)},
        "silence": {"mixing-at-end": "all three recipes of the comparison mix labels to the end"},
    }
)
