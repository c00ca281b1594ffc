"""Session 04: the progressive recipe (WideResNet-28-10, CIFAR-100).

    python -m wrn_jax.train --config configs/session04.py

Dropout, mixup, label smoothing and augmentation step down while the network learns; warm restarts every 20 epochs give way
to one cosine over the last 40. The schedule is the described one, per epoch. The published 72.98 % (epoch 99, one seed, best
epoch chosen on the test set) was made by another: see docs/recipes.md. This one has no published
result, and its time and accuracy on an accelerator have not been measured.
Cost: 1.58e+17 operations.
"""

from wrn_jax.config import Config, Cosine, Data, Linear, Model, Optimizer, Recipe, WarmRestarts, epoch, epochs

config = Config(
    model=Model(depth=28, widen_factor=10),
    data=Data(name="cifar100", validation_size=0),
    recipe=Recipe(
        epochs=100,
        batch_size=256,
        learning_rate={
            epoch(1): Linear(0.01, 0.15, epochs(5)),
            epoch(6): WarmRestarts(0.15, 5e-4, epochs(20), since=epoch(1)),
            epoch(61): Cosine(0.15, 1e-5, epochs(40)),
        },
        dropout={epoch(1): 0.3, epoch(51): 0.2, epoch(81): 0.1},
        mixup_alpha={epoch(1): 0.2, epoch(41): 0.15, epoch(71): 0.0},
        label_smoothing={epoch(1): 0.1, epoch(51): 0.05},
        augmentation={epoch(1): "full", epoch(41): "reduced", epoch(71): "minimal"},
        checkpoint_epochs=(10, 20, 30, 40, 50, 60, 70, 80, 90, 100),
    ),
    optimizer=Optimizer(momentum=0.9, weight_decay=1e-3, clip_norm=1.0),
    silence={"best-on-test": "the published runs of this recipe chose so"},
)
