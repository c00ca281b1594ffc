"""`trivial` with sharpness-aware steps throughout, in groups of 32 images (WideResNet-28-10, CIFAR-100, 200 epochs).

    python -m wrn_jax.train --config sam
    python -m wrn_jax.train --config sam --config.recipe.scale=0.5    # 100 epochs, the same shape

Foret et al., "Sharpness-Aware Minimization", 2021, with a radius of 0.1: published 86.4 %, with AutoAugment, by a
WideResNet with other shortcuts. Not run here.

Cost: 5.67e+17 operations, twice those of `trivial`; `trivial_late_sam` is the cheap form.
"""

from wrn_jax.config import load_file

config = load_file("trivial.py", relative_to=__file__).override({"optimizer.sam_rho": 0.1, "optimizer.sam_group": 32})
