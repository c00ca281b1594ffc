"""Runs made up for tests, as `train` and `evaluate` leave them, and groups of them."""

import dataclasses
import functools
import json

import numpy as np

from wrn_jax.config import load_file
from wrn_jax.report import build, published_runs, runs
from wrn_jax.report.render.blocks import Table
from wrn_jax.training.records import EpochRow, Header, Origin

NUM_TEST = 400
LABELS = np.arange(NUM_TEST) % 100
HEADER = Header(
    time="2026-01-31T12:00:00+0000", command="train", first_step=0, rollbacks=0, seed=0, precision="float32",
    best_chosen_on="test", parameters=83700, train_examples=400, steps_per_epoch=4,
    hardware={"platform": "cpu", "device": "a CPU", "devices": 1, "devices_used": 1, "cpu_cores": 2},
    versions={"python": "3.12.1", "jax": "0.12.0"},
)  # fmt: skip
CHANGES = {
    "model.depth": 10, "model.widen_factor": 1, "model.num_classes": 100, "data.name": "embedded", "data.embedded_train": 400,
    "data.embedded_test": NUM_TEST, "recipe.scale": 0.05, "recipe.batch_size": 100, "precision": "float32",
}  # fmt: skip


def config(**changes):
    """Session 04 in five epochs of four updates on drawn images; `recipe__scale=0.1` changes recipe.scale."""
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return load_file("configs/session04.py").override(CHANGES | named)


def row(epoch, accuracy, valid=None, step=None):
    """The row of an epoch; accuracy is that of the test images, 0..1."""
    return EpochRow(
        epoch=epoch, step=step or 4 * epoch, moving={"learning_rate": 0.1}, train_loss=4.0 - accuracy,
        train_accuracy=accuracy - 0.01, valid_loss=None if valid is None else 3.0, valid_accuracy=valid,
        test_loss=4.0 - 2 * accuracy, test_accuracy=accuracy,
    )  # fmt: skip


def write(directory, accuracies, seed=0, valid=None, checkpoints=(), **changes):
    """Writes a run with these test accuracies, one an epoch, and returns its path."""
    run_config = config(seed=seed, **changes)
    directory.mkdir(parents=True)
    valid = valid or [None] * len(accuracies)
    images = 400 if run_config.data.name == "embedded" else 50_000
    steps = -(-(images - run_config.data.validation_size) // run_config.recipe.batch_size)
    rows = [row(epoch, *both, step=steps * epoch) for epoch, both in enumerate(zip(accuracies, valid, strict=True), 1)]
    (directory / "config.json").write_text(json.dumps(run_config.to_dict()))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row.to_dict()) + "\n" for row in rows))
    command = f"/somewhere/wrn_jax/train.py --config configs/session04.py --config.seed={seed}"
    header = dataclasses.replace(HEADER, command=command, seed=seed, steps_per_epoch=steps)
    (directory / "header.jsonl").write_text(json.dumps(header.to_dict()) + "\n")
    for step in checkpoints:
        (directory / "checkpoints" / str(step)).mkdir(parents=True)
    return directory


def begin(directory, **origin):
    """Has a run begin there instead of with random weights, and returns its path; see `records.Origin`."""
    path = directory / "header.jsonl"
    header = json.loads(path.read_text()) | {"origin": dataclasses.asdict(Origin(**origin))}
    path.write_text(json.dumps(header) + "\n")
    return directory


def evaluate(directory, epoch, correct, digest="same", **more):
    """Writes an evaluation of the checkpoint after `epoch`, of a network that is right on the images where `correct` is."""
    folder = directory / "evaluations"
    folder.mkdir(exist_ok=True)
    accuracy = float(np.mean(correct))
    test = {"top5": min(1.0, accuracy + 0.2), "loss": 2.0, "calibration_error": 0.05 + accuracy / 100}
    figures = {
        "format": 1, "step": 4 * epoch, "epoch": epoch, "chosen_as": ["last"],
        "splits": {
            "test": {"count": NUM_TEST, "accuracy": accuracy} | test,
            "train": {"count": 400, "accuracy": accuracy + 0.1, "loss": 1.5},
        },
        "clean_gap": 0.1, "temperature": None, "corruptions": None,
    } | more  # fmt: skip
    (folder / f"step-{4 * epoch}.json").write_text(json.dumps(figures))
    predicted = np.where(correct, LABELS, (LABELS + 1) % 100).astype(np.uint8)
    labels = LABELS.astype(np.uint8)
    np.savez(folder / f"step-{4 * epoch}.npz", test_predicted=predicted, test_labels=labels, test_digest=np.array(digest))


def right(number):
    """bool [NUM_TEST]: right on the first `number` images."""
    return np.arange(NUM_TEST) < number


def load(*paths):
    """The runs in these places as groups."""
    return runs.group([runs.load(str(path)) for path in paths])


@functools.cache
def published():
    """The two published logs as groups; read once, since their schedules take seconds to compile."""
    return load(*published_runs.LOGS)


def recipe(directory, name, curves, evaluated=(), more=None, **changes):
    """The group of runs with these test accuracies, one run for each curve, of seeds 0, 1, ...

    `evaluated`: for each of them, by epoch, on which images the evaluated checkpoint is right; `more`: further figures.
    """
    paths = [write(directory / f"{name}-seed{seed}", curve, seed, **changes) for seed, curve in enumerate(curves)]
    for path, by_epoch in zip(paths, evaluated, strict=False):
        for epoch, correct in by_epoch.items():
            evaluate(path, epoch, correct, **(more or {}))
    (group,) = load(*paths)
    return group


@functools.cache
def published_report():
    """The report on the two published logs."""
    return build.build(published())


@functools.cache
def log_alone():
    """The log of session 02 as a CSV would give it, of which nothing else is known."""
    return runs.Group("csv", (runs.Run("csv", "csv", tuple(published_runs.rows("session02"))),))


def tables(blocks):
    """The tables of a document's blocks, by caption."""
    return {block.caption: block for block in blocks if isinstance(block, Table)}


def cells(table, row):
    """The cells of the row that begins with `row`, by head."""
    (values,) = [values for values in table.rows if values[0] == row]
    return dict(zip(table.columns, values, strict=True))
