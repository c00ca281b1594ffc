"""`flat` with strengths that grow by thirds of the run, their sums over it the same (WRN-16-1, CIFAR-100, 30 epochs).

    python -m wrn_jax.train --config rising

See `flat`, which says what the comparison is about; the cost is the same. Not run here.
"""

from wrn_jax.config import at, epoch, load_file

THIRDS = (epoch(1), at("33.333333 %"), at("66.666667 %"))

config = load_file("flat.py", relative_to=__file__).override(
    {
        "recipe.dropout": dict(zip(THIRDS, (0.05, 0.1, 0.15), strict=True)),
        "recipe.mixup_alpha": dict(zip(THIRDS, (0.1, 0.2, 0.3), strict=True)),
        "recipe.augmentation": dict(zip(THIRDS, ("weak", "middle", "strong"), strict=True)),
    }
)
