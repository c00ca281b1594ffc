"""The published runs of sessions 02 and 04: their logs, as data of the package, and what the comparison of them said.

WideResNet-28-10 on CIFAR-100, PyTorch, one seed each; the recipes that made them are session02_as_executed and
session04_as_executed. Accuracies are fractions, in 0..1, unless % is said.
"""

import csv
import dataclasses
import importlib.resources
import math
from pathlib import Path
from typing import Any

from wrn_jax.config import Config, load_file, recipes
from wrn_jax.training.records import EpochRow, rows_from

LOGS = ("session02", "session04")
COLUMNS = ("epoch", "train_accuracy", "learning_rate_at_epoch_end", "test_loss", "test_accuracy")
ACCURACIES = ("train_accuracy", "test_accuracy")
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
# The test accuracy (%) that the runs were to reach.
TARGET = 73.0
# Published test accuracies (%) of the same network on CIFAR-100.
PEERS = (
    ("WRN-28-10 (Zagoruyko & Komodakis, 200 epochs)", 80.75),
    ("WRN-28-10 with dropout (Zagoruyko & Komodakis, 200 epochs)", 81.15),
    ("WRN-28-10 with cutout", 81.6),
    ("WRN-28-10 with RandAugment", 83.3),
)


@dataclasses.dataclass(frozen=True)
class Published:
    """The notebook that made a run, where its files lie, and the files by name with the epoch each is of."""

    notebook: str
    place: str
    files: dict[str, int]


PUBLISHED = {
    "session02": Published(
        "08_ERA_V4_Session-02.ipynb",
        "https://huggingface.co/pandurangpatil/cifar100-wideresnet-session8",
        {
            "best_model.pth": 100,
            **{f"checkpoint_epoch{epoch}.pth": epoch for epoch in (10, 20, 25, 30, 40, 50, 60, 75, 90)},
            "final_model.pth": 100,
        },
    ),
    "session04": Published(
        "08_ERA_V4_Session-04.ipynb",
        "https://huggingface.co/pandurangpatil/cifar100-wideresnet-session04",
        {"best_model.pth": 99, **{f"checkpoint_epoch{epoch}.pth": epoch for epoch in range(10, 101, 10)}},
    ),
}


def executed(name: str) -> Config:
    """What ran; precision and classes are the notebook's."""
    config = load_file(recipes.folder() / f"{name}_as_executed.py")
    return config.override({"precision": "float16", "model.num_classes": 100})


def described(name: str) -> Config:
    """What the comparison describes, with rates that never ran."""
    return load_file(recipes.folder() / f"{name}.py")


def rows(name: str) -> list[EpochRow]:
    """The log of a run, one row per epoch."""
    file = f"{name}.csv"
    parsed, _ = parse((importlib.resources.files("wrn_jax.report") / "published_logs" / file).read_text())
    for row in parsed:  # in per cent
        row |= {name: row[name] / 100 for name in ACCURACIES}
    return rows_from(parsed, Path(file))


def decode(content: bytes) -> str:
    """The text of a log as spreadsheets save it: UTF-8, or UTF-16 with its mark. Raises UnicodeDecodeError."""
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def parse(text: str) -> tuple[list[dict[str, Any]], bool]:
    """The lines of a log in CSV, as `EpochRow.to_dict` names their columns, with accuracies as they are written.

    And whether a percent sign stands at an accuracy.

    `learning_rate` is the rate after the epoch's last step; it may be empty. Training accuracy is counted on augmented, mixed
    images with dropout on. A log holds no validation figures and no training loss. Empty lines and repeated headers are
    passed over, and so is a last line that is cut.

    Raises:
      KeyError: a column is missing.
      ValueError: a line is wrong; the text says which and why.
    """
    first = text.lstrip().partition("\n")[0]
    lines = csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count), skipinitialspace=True)
    cells = [(number, [cell.strip() for cell in line]) for number, line in enumerate(lines, 1)]
    cells = [(number, line) for number, line in cells if any(line)]
    header = cells[0][1] if cells else list(COLUMNS)
    for name in COLUMNS:
        if name not in header:
            raise KeyError(name)
    found, has_sign = [], False
    for number, line in cells:
        if line == header:
            continue
        named = dict(zip(header, line, strict=False))
        has_sign |= any(named.get(name, "").endswith("%") for name in ACCURACIES)
        try:
            found.append(_row(named))
        except ValueError as error:
            if number < cells[-1][0] or text.endswith(("\n", "\r")):
                raise ValueError(f"line {number}, {error}") from None
    return found, has_sign


def _row(cells: dict[str, str]) -> dict[str, Any]:
    values = {name: _number(name, cells.get(name, "")) for name in COLUMNS if name in cells or name != COLUMNS[2]}
    epoch, rate = values["epoch"], values.get(COLUMNS[2])
    if epoch is None or not epoch.is_integer():
        raise ValueError(f"epoch: {cells['epoch']!r} is no whole number")
    accuracies = {name: values[name] for name in ACCURACIES}
    row = {"epoch": int(epoch), "step": None, "train_loss": None, "test_loss": values["test_loss"], **accuracies}
    return row if rate is None else row | {"learning_rate": rate}


def _number(name: str, cell: str) -> float | None:
    if not cell and name == COLUMNS[2]:
        return None
    try:
        value = float(cell.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name}: {cell[:40]!r} is no number")
    return value
