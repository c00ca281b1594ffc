"""Session 02 as it was executed, not as it was described (WideResNet-28-10, CIFAR-100).

    python -m wrn_jax.train --config configs/session02_as_executed.py

The optimiser had been built with a rate of 0.01, which the scheduler kept as its peak, and the scheduler was stepped once per
update: after the warm-up the rate is a saw-tooth of 25 updates below 0.01. Cutout cut one or two rectangles with sides of 10 to
20 % of the image. This made the published 71.20 % (PyTorch, float16, epoch 100, one seed, best epoch chosen on the test set).
The cost is that of `session02`. Not run here at full length; a WRN-16-1 at a tenth of it reached 9.41 ± 1.16 % (n = 3, two
cores of an AMD EPYC), as described 31.85 ± 0.25 %.
"""

import dataclasses

from wrn_jax.config import Linear, WarmRestarts, epoch, epochs, load_file, steps

described = load_file("session02.py", relative_to=__file__)
full = dataclasses.replace(
    described.augmentation_levels["full"],
    cutout_probability=0.0,
    holes_probability=0.5,
    holes_smallest=0.1,
    holes_largest=0.2,
)
config = dataclasses.replace(
    described,
    recipe=dataclasses.replace(
        described.recipe,
        learning_rate={
            epoch(1): 0.01,
            epoch(1, plus=1): Linear(0.01, 0.1, epochs(5)),
            epoch(6, plus=1): WarmRestarts(0.01, 1e-4, steps(25), since=epoch(6)),
        },
    ),
    augmentation_levels=described.augmentation_levels | {"full": full},
    early_stopping_patience=15,
)
