"""The session 04 recipe in miniature: a small WideResNet, a data set drawn by code, 100 epochs in 10.

    scripts/train.sh

About two minutes on two CPU cores; no download. Every phase of session 04 is passed through at the same place: warm-up, warm
restarts, cosine, and the steps down of dropout, mixup, label smoothing and augmentation. The strengths are those that suit
84,000 parameters, a tenth of the epochs and 7,000 images, and differ from session 04's:

- batch 16 instead of 256, at a peak rate of 0.05 instead of 0.15; no clipping; weight decay 5e-4 instead of 1e-3;
- dropout 0.02, 0.01, 0 instead of 0.3, 0.2, 0.1; mixup 0.1, 0.05, 0 instead of 0.2, 0.15, 0; label smoothing 0.05, 0.02
  instead of 0.1, 0.05;
- every augmentation a quarter as often, but flips as often as there.

It shows that all works, and how a run looks; its accuracy says nothing about CIFAR-100.
"""

import dataclasses

from wrn_jax.config import Cosine, Linear, Strengths, WarmRestarts, epoch, epochs, load_file

PEAK = 0.05


def quarter(strengths: Strengths) -> Strengths:
    """The same changes a quarter as often, flips as often as before."""
    names = [field.name for field in dataclasses.fields(strengths) if field.name.endswith("probability")]
    rarer = {name: getattr(strengths, name) / 4 for name in names if name != "flip_probability"}
    return dataclasses.replace(strengths, **rarer)


session04 = load_file("session04.py", relative_to=__file__)
config = session04.override(
    {
        "model.depth": 10,
        "model.widen_factor": 1,
        "data.name": "embedded",
        "data.embedded_train": 8000,
        "data.validation_size": 1000,
        "recipe.scale": 0.1,
        "recipe.batch_size": 16,
        "recipe.learning_rate": {
            epoch(1): Linear(PEAK / 15, PEAK, epochs(5)),
            epoch(6): WarmRestarts(PEAK, PEAK / 300, epochs(20), since=epoch(1)),
            epoch(61): Cosine(PEAK, PEAK / 15000, epochs(40)),
        },
        "recipe.dropout": {epoch(1): 0.02, epoch(51): 0.01, epoch(81): 0.0},
        "recipe.mixup_alpha": {epoch(1): 0.1, epoch(41): 0.05, epoch(71): 0.0},
        "recipe.label_smoothing": {epoch(1): 0.05, epoch(51): 0.02},
        "optimizer.weight_decay": 5e-4,
        "optimizer.clip_norm": None,
        "augmentation_levels": {name: quarter(level) for name, level in session04.augmentation_levels.items()},
        "silence": {},  # unlike session 04, this has a hold-out to choose the best epoch on
    }
)
