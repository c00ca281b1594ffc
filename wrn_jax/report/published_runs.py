"""The published runs of sessions 02 and 04: their logs, as data of the package, and what the comparison of them said.

WideResNet-28-10 on CIFAR-100, PyTorch, one seed each; the schedules that made them are configs/session02_as_executed.py and
configs/session04_as_executed.py. Accuracies are fractions, in 0..1, unless % is said.
"""

import csv
import importlib.resources
from pathlib import Path
from typing import Any

from wrn_jax.training.records import EpochRow, rows_from

LOGS = ("session02", "session04")
COLUMNS = ("epoch", "train_accuracy", "learning_rate_at_epoch_end", "test_loss", "test_accuracy")
NUM_PARAMETERS = 36_536_884
STEPS_PER_EPOCH = 196

# The comparison document's test accuracies (%) by epoch where they differ from the logs, which are the truth.
DOCUMENTED = {
    "session02": {20: 53.06, 40: 59.54, 50: 62.94, 60: 64.38, 70: 66.21, 75: 67.37, 90: 69.53},
    "session04": {70: 70.37, 71: 70.72, 80: 71.89, 90: 70.00, 93: 71.41, 100: 69.64},
}
# Its final train accuracies (%); session 04's log has 98.96.
DOCUMENTED_TRAIN = {"session02": 69.26, "session04": 97.85}
# Its gaps (%): that train accuracy minus the best test accuracy.
DOCUMENTED_GAP = {"session02": -1.94, "session04": 24.87}
# The epochs of its table.
DOCUMENTED_EPOCHS = (1, 5, 10, 20, 25, 30, 40, 41, 50, 60, 70, 71, 75, 80, 81, 90, 93, 99, 100)
# The rates it describes, which never ran: as recipe.learning_rate in configs/session02.py and configs/session04.py.
DESCRIBED_RATE = {
    "session02": {
        "epoch 1": {"kind": "linear", "start": 0.01, "end": 0.1, "over": "5 epochs"},
        "epoch 6": {"kind": "warm_restarts", "peak": 0.1, "floor": 1e-4, "period": "25 epochs", "since": "epoch 1"},
    },
    "session04": {
        "epoch 1": {"kind": "linear", "start": 0.01, "end": 0.15, "over": "5 epochs"},
        "epoch 6": {"kind": "warm_restarts", "peak": 0.15, "floor": 5e-4, "period": "20 epochs", "since": "epoch 1"},
        "epoch 61": {"kind": "cosine", "start": 0.15, "end": 1e-5, "over": "40 epochs"},
    },
}
# The test accuracy (%) that the runs were to reach.
TARGET = 73.0
# Published test accuracies (%) of the same network on CIFAR-100.
PEERS = (
    ("WRN-28-10 (Zagoruyko & Komodakis, 200 epochs)", 80.75),
    ("WRN-28-10 with dropout (Zagoruyko & Komodakis, 200 epochs)", 81.15),
    ("WRN-28-10 with cutout", 81.6),
    ("WRN-28-10 with RandAugment", 83.3),
)
# Where the published files lie, the notebook that made them, and the files by name with the epoch each is of.
PUBLISHED = {
    "session02": {
        "notebook": "08_ERA_V4_Session-02.ipynb",
        "place": "https://huggingface.co/pandurangpatil/cifar100-wideresnet-session8",
        "files": {
            "best_model.pth": 100,
            **{f"checkpoint_epoch{epoch}.pth": epoch for epoch in (10, 20, 25, 30, 40, 50, 60, 75, 90)},
            "final_model.pth": 100,
        },
    },
    "session04": {
        "notebook": "08_ERA_V4_Session-04.ipynb",
        "place": "https://huggingface.co/pandurangpatil/cifar100-wideresnet-session04",
        "files": {
            "best_model.pth": 99,
            **{f"checkpoint_epoch{epoch}.pth": epoch for epoch in range(10, 101, 10)},
        },
    },
}


def _executed_levels(levels: dict[str, float]) -> dict[str, float]:
    """Cutout as it ran: one or two rectangles with sides of 10 to 20 %, at the level's probability, instead of a square."""
    changes = {}
    for name, probability in levels.items():
        key = f"augmentation_levels.{name}"
        changes |= {
            f"{key}.cutout_probability": 0.0,
            f"{key}.holes_probability": probability,
            f"{key}.holes_smallest": 0.1,
            f"{key}.holes_largest": 0.2,
        }
    return changes


_SHARED = {
    "precision": "float16",
    "model.num_classes": 100,
    "data.validation_size": 0,
    "early_stopping_patience": 15,
}
# What ran, as changes from the package's defaults; optimiser, network, batch size and length are these defaults.
EXECUTED: dict[str, dict[str, Any]] = {
    "session02": _SHARED
    | {
        "recipe.learning_rate": {
            "epoch 1": 0.01,
            "epoch 1 + 1 step": {"kind": "linear", "start": 0.01, "end": 0.1, "over": "5 epochs"},
            "epoch 6 + 1 step": {
                "kind": "warm_restarts", "peak": 0.01, "floor": 1e-4, "period": "25 steps", "since": "epoch 6",
            },
        },
        "recipe.dropout": 0.3,
        "recipe.mixup_alpha": 0.2,
        "recipe.label_smoothing": 0.1,
        "recipe.checkpoint_epochs": [10, 20, 25, 30, 40, 50, 60, 75, 90, 100],
    }
    | _executed_levels({"full": 0.5}),
    "session04": _SHARED
    | {
        "recipe.learning_rate": {
            "epoch 1": 0.01,
            "epoch 1 + 1 step": {"kind": "linear", "start": 0.01, "end": 0.15, "over": "5 epochs"},
            "epoch 6 + 1 step": {
                "kind": "warm_restarts", "peak": 0.01, "floor": 5e-4, "period": "20 steps", "since": "epoch 6",
            },
            "epoch 61": {"kind": "cosine", "start": 0.01, "end": 1e-5, "over": "40 steps", "beyond": "continue"},
        },
        "recipe.dropout": {"epoch 1": 0.3, "epoch 51": 0.2, "epoch 81": 0.1},
        "recipe.mixup_alpha": {"epoch 1": 0.2, "epoch 41": 0.15, "epoch 71": 0.0},
        "recipe.label_smoothing": {"epoch 1": 0.1, "epoch 51": 0.05},
        "recipe.augmentation": {"epoch 1": "full", "epoch 41": "reduced", "epoch 71": "minimal"},
        "recipe.checkpoint_epochs": [10, 20, 30, 40, 50, 60, 70, 80, 90, 100],
    }
    | _executed_levels({"minimal": 0.3, "reduced": 0.35, "full": 0.5}),
}  # fmt: skip


def rows(name: str) -> list[EpochRow]:
    """The log of a run, one row per epoch."""
    file = f"{name}.csv"
    return rows_from(parse((importlib.resources.files("wrn_jax.report") / "published_logs" / file).read_text()), Path(file))


def parse(text: str) -> list[dict[str, Any]]:
    """The lines of a log in CSV, as `EpochRow.to_dict` names their columns.

    `learning_rate` is the rate after the epoch's last step. Training accuracy is counted on augmented, mixed images with
    dropout on. A log holds no validation figures and no training loss.

    Raises:
      KeyError, ValueError, TypeError: the text is no such log.
    """
    return [
        {
            "epoch": int(row["epoch"]),
            "step": None,
            "learning_rate": float(row["learning_rate_at_epoch_end"]),
            "train_loss": None,
            "train_accuracy": float(row["train_accuracy"]) / 100,
            "test_loss": float(row["test_loss"]),
            "test_accuracy": float(row["test_accuracy"]) / 100,
        }
        for row in csv.DictReader(text.splitlines())
    ]
