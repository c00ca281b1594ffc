"""`small30` with the time for TrivialAugment and a weight average: 100 epochs (WRN-16-2, CIFAR-100).

    python -m wrn_jax.train --config small100
    python -m wrn_jax.train --config small100 --config.model.depth=40

TrivialAugment has its standard ranges; the average (decay 0.999) covers the last quarter, and is what is evaluated.
For WRN-16-1 to WRN-16-4 and WRN-40-2; TrivialAugment is expected to help from WRN-16-2 on, and a WRN-16-1 has hardly room for
it. Published for comparison: a plain WRN-16-2 reaches 73.3 % in 240 epochs, a plain WRN-40-2 75.96 % in 100. Cost: 2.73e+15
operations. Not run here.
"""

from wrn_jax.config import at, epoch, load_file

small30 = load_file("small30.py", relative_to=__file__)
config = small30.override(
    {
        "model.widen_factor": 2,
        "recipe.epochs": 100,
        "augmentation_levels.crop.trivial_probability": 1.0,
        "optimizer.average_decay": {epoch(1): 0.0, at("75 %"): 0.999},
    }
)
