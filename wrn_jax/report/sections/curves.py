"""The plots of a comparison: what was measured and what moved, over the epochs; one line for each recipe."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from wrn_jax.config.moving import MOVING, NUMERIC
from wrn_jax.config.timeline import Timeline
from wrn_jax.report import formats, measures
from wrn_jax.report.render.blocks import Plot, Series
from wrn_jax.report.runs import Group
from wrn_jax.training.records import EpochRow

X_LABEL = "finished epochs"


def curves(groups: Sequence[Group]) -> list[Plot]:
    """Accuracies, losses and gaps; what no recipe has a figure of is left out."""
    band = _band_text(groups)
    plots = [
        _curve(
            groups, "test_accuracy", lambda row: row.test_accuracy, "Test accuracy", "test accuracy (%)",
            f"Accuracy on the test images. {band}", factor=100,
        ),
        _curve(
            groups, "train_accuracy", lambda row: row.train_accuracy, "Training accuracy, on augmented and mixed images",
            "training accuracy (%)",
            f"Counted on the images as they are trained on, dropout on: not comparable with test accuracy. {band}", factor=100,
        ),
        _curve(
            groups, "valid_accuracy", lambda row: row.valid_accuracy, "Accuracy on the hold-out", "validation accuracy (%)",
            band, factor=100,
        ),
        _curve(groups, "test_loss", lambda row: row.test_loss, "Test loss", "test loss (nats)", band),
        _curve(
            groups, "train_loss", lambda row: row.train_loss, "Training loss", "training loss (nats)",
            f"Of smoothed and mixed labels. {band}",
        ),
        _curve(
            groups, "gap", lambda row: row.train_accuracy - row.test_accuracy,
            "Gap under augmentation: training minus test accuracy", "gap (points)",
            "Training accuracy, on augmented and mixed images with dropout on, minus test accuracy. It rises when "
            "augmentation, mixup or dropout step down, whatever the network has learnt: it is no measure of overfitting. "
            f"{band}", factor=100,
        ),
    ]  # fmt: skip
    return [plot for plot in plots if plot is not None]


def hyperparameters(groups: Sequence[Group]) -> list[Plot]:
    """The learning rate, also as it was around each evaluation, and all else that moves in any recipe."""
    timelines = [group.timeline for group in groups]
    plots = [_rate(groups), _rate_at_evaluations(groups)]
    for name in NUMERIC[1:]:
        lines = [None if timeline is None else timeline.values[name].astype(float) for timeline in timelines]
        if any(line is not None and np.ptp(line) for line in lines):
            label = MOVING[name].label
            description = f"The {label} up to the end of every epoch and of every phase."
            plots.append(_stepped(groups, name, label.capitalize(), label, lines, description))
    names = list(dict.fromkeys(name for timeline in timelines if timeline is not None for name in timeline.level_names))
    if len(names) > 1:
        lines = [None if timeline is None else _level_places(timeline, names) for timeline in timelines]
        legend = ", ".join(f"{place} {name}" for place, name in enumerate(names))
        plots.append(
            _stepped(
                groups, "augmentation", f"Augmentation level ({legend})", "augmentation level", lines,
                f"The level of augmentation up to the end of every epoch and of every phase: {legend}.",
            )
        )  # fmt: skip
    return [plot for plot in plots if plot is not None]


def _level_places(timeline: Timeline, names: Sequence[str]) -> np.ndarray:
    return np.array([names.index(name) for name in timeline.level_names], float)[timeline.values["augmentation"]]


def marks(groups: Sequence[Group]) -> tuple[tuple[float, str], ...]:
    """The transitions of all recipes as (finished epochs, text); one that several recipes share is told once."""
    names_at: dict[tuple[float, str], list[str]] = {}
    for group in groups:
        if group.timeline is None:
            continue
        for event in measures.transitions(group.timeline):
            where = event.step / group.timeline.steps_per_epoch
            text = f"{formats.transition(event)}, from {formats.position(event.step, group.timeline)} on"
            names_at.setdefault((where, text), []).append(group.name)
    return tuple((where, f"{text} ({', '.join(names)})") for (where, text), names in sorted(names_at.items()))


def _band_text(groups: Sequence[Group]) -> str:
    several = [group for group in groups if len(group.runs) > 1]
    if not several:
        return "One run of each recipe." if len(groups) > 1 else "One run."
    names = formats.listed([f"{group.name} (n = {len(group.runs)})" for group in several])
    return f"Line: mean over the seeds; band: from the lowest to the highest run, of {names}."


def _curve(
    groups: Sequence[Group],
    name: str,
    value: Callable[[EpochRow], float | None],
    title: str,
    label: str,
    description: str,
    factor: float = 1,
) -> Plot | None:
    curves = [(group, *measures.mean_curve(group, value)) for group in groups]
    series = [_series(group, epochs, *[factor * line for line in lines]) for group, epochs, lines in curves]
    return _plot(name, title, label, series, groups, description)  # fmt: skip


def _series(group: Group, epochs: Sequence[float], mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> Series:
    if len(group.runs) == 1:
        return Series(group.name, epochs, mean.tolist())
    return Series(group.name, epochs, mean.tolist(), low.tolist(), high.tolist())


def _plot(name: str, title: str, label: str, series: list[Series], groups: Sequence[Group], description: str) -> Plot | None:
    if all(math.isnan(value) for line in series for value in line.y):
        return None
    return Plot(name, title, X_LABEL, label, series, marks(groups), description)


def _rate(groups: Sequence[Group]) -> Plot | None:
    series = []
    for group in groups:
        if group.timeline is None:
            rates = [float(row.moving.get("learning_rate", math.nan)) for row in group.runs[0].rows]
            series.append(Series(group.name, list(range(1, len(rates) + 1)), rates))
            continue
        table = group.timeline.values["learning_rate"].astype(float).reshape(-1, group.timeline.steps_per_epoch)
        epochs = list(range(1, len(table) + 1))
        series.append(
            Series(group.name, epochs, table.mean(axis=1).tolist(), table.min(axis=1).tolist(), table.max(axis=1).tolist())
        )
    description = "Line: mean rate of an epoch's updates; band: from the lowest to the highest."
    if logged := [group.name for group in groups if group.timeline is None]:
        description += f" Of {formats.listed(logged)}: as logged."
    plot = _plot("learning_rate", "Learning rate within each epoch", "learning rate", series, groups, description)
    return _logarithmic(plot)


def _rate_at_evaluations(groups: Sequence[Group]) -> Plot | None:
    series = []
    for group in groups:
        cycle = measures.rate_cycle(group)
        if cycle is None:
            series.append(Series(group.name, [1], [math.nan]))
            continue
        series.append(
            Series(
                group.name,
                [evaluation.epoch for evaluation in cycle.evaluations],
                [evaluation.before for evaluation in cycle.evaluations],
            )
        )
    description = (
        "The rate of the last update before each evaluation. Where it jumps from epoch to epoch, the evaluations fell at "
        "unlike places of the rate's cycle."
    )
    title = "Learning rate where the evaluations fell"
    return _logarithmic(_plot("rate_at_evaluation", title, "learning rate", series, groups, description))


def _logarithmic(plot: Plot | None) -> Plot | None:
    """The plot on a logarithmic axis, where all its values allow it: a saw-tooth is lost beside a warm-up ten times as high."""
    if plot is None:
        return None
    values = [value for series in plot.series for line in (series.y, series.low or (), series.high or ()) for value in line]
    return dataclasses.replace(plot, log_y=all(value > 0 for value in values if not math.isnan(value)))


def _stepped(
    groups: Sequence[Group], name: str, title: str, label: str, lines: Sequence[np.ndarray | None], description: str
) -> Plot | None:
    places = sorted(set().union(*(_edges(group.timeline, name) for group in groups if group.timeline is not None)))
    series = []
    for group, line in zip(groups, lines, strict=True):
        if line is None or group.timeline is None:
            series.append(Series(group.name, [1], [math.nan]))
            continue
        steps_per_epoch = group.timeline.steps_per_epoch
        x = [place for place in places if place * steps_per_epoch <= len(line)]
        last_updates = [max(math.ceil(place * steps_per_epoch - 1e-6) - 1, 0) for place in x]
        series.append(Series(group.name, x, line[last_updates].tolist()))
    plot = _plot(name, title, label, series, groups, description)
    return plot and dataclasses.replace(plot, stepped=True)


def _edges(timeline: Timeline, name: str) -> set[float]:
    """The ends of the epochs, and where phases of a hyperparameter begin, in finished epochs."""
    begins = {event.step / timeline.steps_per_epoch for event in timeline.events() if event.name == name}
    return {float(epoch) for epoch in range(timeline.epochs + 1)} | begins
