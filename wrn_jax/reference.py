"""The published runs of sessions 02 and 04: their logs, as data of the package, and what the comparison of them said.

WideResNet-28-10 on CIFAR-100, PyTorch, one seed each; the schedules that made them are configs/session02_as_executed.py and
configs/session04_as_executed.py. Accuracies are fractions, in 0..1.
"""

import csv
import importlib.resources
from typing import Any

LOGS = ("session02", "session04")

# The comparison document's test accuracies (%) by epoch where they differ from the logs, which are the truth.
DOCUMENTED = {
    "session02": {20: 53.06, 40: 59.54, 50: 62.94, 60: 64.38, 70: 66.21, 75: 67.37, 90: 69.53},
    "session04": {70: 70.37, 71: 70.72, 80: 71.89, 90: 70.00, 93: 71.41, 100: 69.64},
}
# Its final train accuracies (%); session 04's log has 98.96.
DOCUMENTED_TRAIN = {"session02": 69.26, "session04": 97.85}


def rows(name: str) -> list[dict[str, Any]]:
    """The log of a run, one row per epoch, with the names of `metrics.jsonl`.

    `learning_rate` is the rate after the epoch's last step. Training accuracy is counted on augmented, mixed images with
    dropout on. A log holds no validation figures and no training loss.
    """
    text = (importlib.resources.files("wrn_jax") / "reference_logs" / f"{name}.csv").read_text()
    return [
        {
            "epoch": int(row["epoch"]),
            "learning_rate": float(row["learning_rate_at_epoch_end"]),
            "train_accuracy": float(row["train_accuracy"]) / 100,
            "test_loss": float(row["test_loss"]),
            "test_accuracy": float(row["test_accuracy"]) / 100,
        }
        for row in csv.DictReader(text.splitlines())
    ]
