"""Session 02: everything constant, warm restarts every 25 epochs (WideResNet-28-10, CIFAR-100).

    python -m wrn_jax.train --config configs/session02.py

The schedule is the described one: its clock starts with epoch 1 and runs per epoch, so the cycles end after epochs 25, 50,
75 and 100. The published 71.20 % (epoch 100, one seed, best epoch chosen on the test set) was made by another: see
docs/recipes.md. This one has no published result, and its time and accuracy on an accelerator have not been measured.
Cost: 1.58e+17 operations.
"""

from wrn_jax.config import Config, Data, Linear, Model, Optimizer, Recipe, WarmRestarts, epoch, epochs

config = Config(
    model=Model(depth=28, widen_factor=10),
    data=Data(name="cifar100", validation_size=0),
    recipe=Recipe(
        epochs=100,
        batch_size=256,
        learning_rate={
            epoch(1): Linear(0.01, 0.1, epochs(5)),
            epoch(6): WarmRestarts(0.1, 1e-4, epochs(25), since=epoch(1)),
        },
        dropout={epoch(1): 0.3},
        mixup_alpha={epoch(1): 0.2},
        label_smoothing={epoch(1): 0.1},
        augmentation={epoch(1): "full"},
        checkpoint_epochs=(10, 20, 25, 30, 40, 50, 60, 75, 90, 100),
    ),
    optimizer=Optimizer(momentum=0.9, weight_decay=1e-3, clip_norm=1.0),
    silence={
        "best-on-test": "the published runs of this recipe chose so",
        "mixing-at-end": "everything stands still in this recipe, mixup as well",
    },
)
