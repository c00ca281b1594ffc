"""TrivialAugment and cutout on top of `base`, with one cosine to zero (WideResNet-28-10, CIFAR-100, 200 epochs).

    python -m wrn_jax.train --config trivial
    python -m wrn_jax.train --config trivial --config.recipe.scale=0.5    # 100 epochs, the same shape

Müller & Hutter, "TrivialAugment", 2021: one operation an image from the wide ranges, then crop and flip, then cutout of 16
pixels in the mean colour; gradients clipped to 5. Published: 84.33 %, by a WideResNet with other shortcuts. Not run here.

Cost: 2.83e+17 operations, those of `base`.
"""

from wrn_jax.config import Cosine, Strengths, load_file, share

config = load_file("base.py", relative_to=__file__).override(
    {
        "recipe.learning_rate": Cosine(0.1, 0.0, share("100 %")),
        "recipe.augmentation": "trivial",
        "optimizer.clip_norm": 5.0,
        "augmentation_levels": {
            "trivial": Strengths(
                trivial_probability=1.0,
                wide_ranges=1.0,
                crop_probability=1.0,
                crop_padding=4.0,
                flip_probability=0.5,
                mean_cutout_probability=1.0,
                mean_cutout_size=16.0,
            ),
        },
    }
)
