"""WideResNet-28-10 as its paper trains it: crop and flip, three steps down, nothing else (CIFAR-100, 200 epochs).

    python -m wrn_jax.train --config base
    python -m wrn_jax.train --config base --config.recipe.scale=0.5    # 100 epochs, the same shape

The starting point of the recipes beside it. Zagoruyko & Komodakis, "Wide Residual Networks", 2016: Nesterov's momentum, L2 5e-4
on all parameters, the rate times 0.2 after 30, 60 and 80 % of the run, crops padded by reflection. Published with this
network: 80.3 to 80.6 % on 45,000 training images (in JAX, by others), 81.2 % on all. Not run here.

Cost: 2.83e+17 operations; no time has been measured.
"""

from wrn_jax.config import Config, Model, Optimizer, Recipe, Strengths, at, step_decay

config = Config(
    model=Model(depth=28, widen_factor=10),
    recipe=Recipe(
        epochs=200,
        batch_size=128,
        learning_rate=step_decay(0.1, 0.2, [at("30 %"), at("60 %"), at("80 %")]),
        augmentation="crop",
    ),
    optimizer=Optimizer(nesterov=True, weight_decay=5e-4, clip_norm=None),
    augmentation_levels={
        "crop": Strengths(crop_probability=1.0, crop_padding=4.0, crop_reflection=1.0, flip_probability=0.5),
    },
)
