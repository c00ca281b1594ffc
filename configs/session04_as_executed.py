"""Session 04 as it was executed, not as it was described (WideResNet-28-10, CIFAR-100).

    python -m wrn_jax.train --config configs/session04_as_executed.py

The optimiser had been built with a rate of 0.01, which both schedulers kept as their peak, and they were stepped once per
update: after the warm-up the rate is a saw-tooth of 20 updates below 0.01, and from epoch 61 on a wave of 80. Cutout cut one or
two rectangles with sides of 10 to 20 % of the image. This made the published 72.98 % (PyTorch, float16, epoch 99, one seed,
best epoch chosen on the test set; 69.59 % after epoch 100). The cost is that of `session04`. Not run here at full length; a
WRN-16-1 at a tenth of it reached 11.71 ± 1.18 % (n = 3, two cores of an AMD EPYC), as described 42.45 ± 0.57 %.
"""

import dataclasses

from wrn_jax.config import Cosine, Linear, WarmRestarts, epoch, epochs, load_file, steps

described = load_file("session04.py", relative_to=__file__)
config = dataclasses.replace(
    described,
    recipe=dataclasses.replace(
        described.recipe,
        learning_rate={
            epoch(1): 0.01,
            epoch(1, plus=1): Linear(0.01, 0.15, epochs(5)),
            epoch(6, plus=1): WarmRestarts(0.01, 5e-4, steps(20), since=epoch(6)),
            epoch(61): Cosine(0.01, 1e-5, steps(40), beyond="continue"),
        },
    ),
    augmentation_levels=described.augmentation_levels
    | {
        name: dataclasses.replace(
            described.augmentation_levels[name],
            cutout_probability=0.0,
            holes_probability=described.augmentation_levels[name].cutout_probability,
            holes_smallest=0.1,
            holes_largest=0.2,
        )
        for name in ("full", "reduced", "minimal")
    },
    early_stopping_patience=15,
)
