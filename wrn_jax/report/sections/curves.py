"""The plots of a comparison: what was measured and what moved, over the epochs; one line for each recipe."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wrn_jax.config.moving import MOVING, NUMERIC
from wrn_jax.config.timeline import Timeline, level_course
from wrn_jax.report import formats, measures
from wrn_jax.report.render.blocks import Plot, Series
from wrn_jax.report.runs import Group
from wrn_jax.training.records import EpochRow

_ON_MIXED = "Counted on the images as they are trained on, dropout on: not comparable with test accuracy. "
_GAP = (
    "Training accuracy, on augmented and mixed images with dropout on, minus test accuracy. It rises when augmentation, mixup "
    "or dropout step down, whatever the network has learnt: it is no measure of overfitting. "
)
# Name, title, label of the axis, what the description says first, and the value of a row in that unit.
_CURVES: tuple[tuple[str, str, str, str, Callable[[EpochRow], float | None]], ...] = (
    ("test_accuracy", "Test accuracy", "test accuracy (%)", "Accuracy on the test images. ", lambda row: row.test_accuracy),
    ("train_accuracy", "Training accuracy, on augmented and mixed images", "training accuracy (%)", _ON_MIXED,
     lambda row: row.train_accuracy),
    ("valid_accuracy", "Accuracy on the hold-out", "validation accuracy (%)", "", lambda row: row.valid_accuracy),
    ("test_loss", "Test loss", "test loss (nats)", "", lambda row: row.test_loss),
    ("train_loss", "Training loss", "training loss (nats)", "Of smoothed and mixed labels. ", lambda row: row.train_loss),
    ("gap", "Gap under augmentation: training minus test accuracy", "gap (points)", _GAP,
     lambda row: row.train_accuracy - row.test_accuracy),
)  # fmt: skip


def curves(groups: Sequence[Group]) -> list[Plot]:
    """Accuracies, losses and gaps; what no recipe has a figure of is left out."""
    runs, transitions, plots = _runs_text(groups), marks(groups), []
    for name, title, label, description, value in _CURVES:
        series = []
        for group in groups:
            mean, *edges = ((1 if "nats" in label else 100) * line for line in measures.mean_curve(group, value))
            series.append(_series(group, range(1, len(mean) + 1), mean, *(edges if len(group.runs) > 1 else ())))
        plots += _plot(name, title, label, series, description + runs, transitions)
    return plots


def opening(groups: Sequence[Group]) -> list[Plot]:
    """The test accuracies alone, without the transitions."""
    accuracy = curves(groups)[:1]
    return [dataclasses.replace(plot, name="opening", marks=()) for plot in accuracy]


def hyperparameters(groups: Sequence[Group]) -> list[Plot]:
    """The learning rate, also as it was around each evaluation, and all else that moves in any recipe.

    Without the transitions: the lines themselves show them.
    """
    timelines = [group.timeline for group in groups]
    plots = [*_rate(groups), *_rate_at_evaluations(groups)]
    for name in NUMERIC[1:]:
        lines = [None if timeline is None else timeline.values[name].astype(float) for timeline in timelines]
        if any(line is not None and np.ptp(line) for line in lines):
            label = MOVING[name].label
            description = f"The {label} up to the end of every epoch and of every phase."
            plots += _stepped(groups, name, label.capitalize(), label, lines, description)
    names = list(dict.fromkeys(name for timeline in timelines if timeline is not None for name in timeline.level_names))
    if len(names) > 1:
        lines = [None if timeline is None else level_course(timeline, names) for timeline in timelines]
        legend = ", ".join(f"{place} {name}" for place, name in enumerate(names))
        description = f"The level of augmentation up to the end of every epoch and of every phase: {legend}."
        title = f"Augmentation level ({legend})"
        plots += _stepped(groups, "augmentation", title, "augmentation level", lines, description)
    return plots


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
    return tuple((where, f"{text} ({formats.whose(names, groups)})") for (where, text), names in sorted(names_at.items()))


def _runs_text(groups: Sequence[Group]) -> str:
    several = [group for group in groups if len(group.runs) > 1]
    if not several:
        return "One run of each recipe." if len(groups) > 1 else "One run."
    numbers = {len(group.runs) for group in groups}
    names = formats.listed([f"{group.name} (n = {len(group.runs)})" for group in several])
    names = f"each recipe (n = {len(groups[0].runs)})" if len(numbers) == 1 and len(groups) > 2 else names
    return f"Line: mean over the seeds; band: from the lowest to the highest run, of {names}."


def _series(group: Group, x: Sequence[float], *lines: Any) -> Series:
    """A recipe's line, perhaps with the lower and the upper edge of its band."""
    return Series(group.name, list(x), *(np.asarray(line, float).tolist() for line in lines))


def _unknown(group: Group) -> Series:
    """Of a recipe that is not known: a line without a point, so that it keeps its place."""
    return Series(group.name, [1], [math.nan])


def _plot(
    name: str,
    title: str,
    label: str,
    series: list[Series],
    description: str,
    transitions: tuple[tuple[float, str], ...] = (),
    stepped: bool = False,
) -> list[Plot]:
    """The plot; none where there is nothing to be seen. A rate is on a logarithmic axis, where all its values allow it: a
    saw-tooth is lost beside a warm-up ten times as high."""
    if all(math.isnan(value) for line in series for value in line.y):
        return []
    values = [value for line in series for part in (line.y, line.low or (), line.high or ()) for value in part]
    log = label == "learning rate" and all(value > 0 for value in values if not math.isnan(value))
    return [Plot(name, title, "finished epochs", label, series, transitions, description, log, stepped)]


def _rate(groups: Sequence[Group]) -> list[Plot]:
    series = []
    for group in groups:
        if group.timeline is None:
            rates = [float(row.moving.get("learning_rate", math.nan)) for row in group.runs[0].rows]
            series.append(_series(group, range(1, len(rates) + 1), rates))
        else:
            timeline = group.timeline
            ends = timeline.index(np.arange(1, timeline.epochs) * timeline.steps_per_epoch)
            parts = np.split(timeline.values["learning_rate"].astype(float), ends)
            lines = ([part.mean() for part in parts], [part.min() for part in parts], [part.max() for part in parts])
            series.append(_series(group, range(1, len(parts) + 1), *lines))
    description = "Line: mean rate of an epoch's updates; band: from the lowest to the highest."
    if logged := [group.name for group in groups if group.timeline is None]:
        description += f" Of {formats.listed(logged)}: as logged."
    return _plot("learning_rate", "Learning rate within each epoch", "learning rate", series, description)


def _rate_at_evaluations(groups: Sequence[Group]) -> list[Plot]:
    series = []
    for group in groups:
        cycle = measures.rate_cycle(group)
        course = () if cycle is None else cycle.evaluations
        series.append(_series(group, [at.epoch for at in course], [at.before for at in course]) if course else _unknown(group))
    description = (
        "The rate of the last update before each evaluation. Where it jumps from epoch to epoch, the evaluations fell at "
        "unlike places of the rate's cycle."
    )
    title = "Learning rate where the evaluations fell"
    return _plot("rate_at_evaluation", title, "learning rate", series, description)


def _stepped(
    groups: Sequence[Group], name: str, title: str, label: str, lines: Sequence[np.ndarray | None], description: str
) -> list[Plot]:
    places = sorted(set().union(*(_edges(group.timeline, name) for group in groups if group.timeline is not None)))
    series = []
    for group, line in zip(groups, lines, strict=True):
        if line is None or group.timeline is None:
            series.append(_unknown(group))
            continue
        x = [place for place in places if place * group.timeline.steps_per_epoch <= group.timeline.steps]
        last_updates = [max(math.ceil(place * group.timeline.steps_per_epoch - 1e-6) - 1, 0) for place in x]
        series.append(_series(group, x, line[group.timeline.index(last_updates)]))
    return _plot(name, title, label, series, description, stepped=True)


def _edges(timeline: Timeline, name: str) -> set[float]:
    """The ends of the epochs, and where phases of a hyperparameter begin, in finished epochs."""
    begins = {event.step / timeline.steps_per_epoch for event in timeline.events() if event.name == name}
    return {float(epoch) for epoch in range(timeline.epochs + 1)} | begins
