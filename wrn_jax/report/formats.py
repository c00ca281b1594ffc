"""How a report writes figures and says what they are; accuracies come as fractions and are shown in per cent or points."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from wrn_jax.config.moving import MOVING
from wrn_jax.config.timeline import Event, Timeline
from wrn_jax.report import measures
from wrn_jax.report.measures import RateCycle
from wrn_jax.report.runs import Group, Run
from wrn_jax.report.statistics import SIGNIFICANCE, Difference, Summary
from wrn_jax.training.records import describe_hardware

NONE = "-"
"""Where there is no figure."""

MOST_SINGLE = 6
"""Runs that are named one by one where a line speaks of all."""

MOST_COMPARED = 4
"""Recipes that are each compared with every other one in tables that would get too wide or long with more."""

NOT_RECORDED = "not recorded"
NOT_EVALUATED = "not evaluated"
JUDGES = {"test": "the test set", "valid": "the hold-out"}
"""What chose the best epoch."""


def percent(value: float | None, digits: int = 2) -> str:
    """0.7120 as "71.20"."""
    return NONE if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def points(value: float | None) -> str:
    """A difference of fractions in points, with its sign: "+1.61"."""
    return NONE if value is None or math.isnan(value) else f"{100 * value:+.2f}"


def spread(summary: Summary | None, factor: float = 100, digits: int = 2, sign: str = "") -> str:
    """Mean and standard deviation, as in 42.97 ± 0.51; the mean alone where n = 1. `sign="+"` writes the sign of the mean."""
    if summary is None or math.isnan(summary.mean):
        return NONE
    text = f"{factor * summary.mean:{sign}.{digits}f}"
    return text if summary.sd is None else f"{text} ± {factor * summary.sd:.{digits}f}"


def values(figures: Sequence[float] | None, factor: float = 100, digits: int = 2) -> str:
    """Mean and standard deviation of the runs' values."""
    return spread(measures.summary(figures), factor, digits)


def gaps(figures: Sequence[float] | None) -> str:
    """Mean and standard deviation of the runs' gaps, in points, with the sign of the mean."""
    return NOT_EVALUATED if figures is None else spread(measures.summary(figures), sign="+")


def clean_gap(group: Group, which: str = "last") -> str:
    """The clean gap in points, or that it is not there."""
    return gaps(measures.measured(group, which, ("clean_gap",)))


def interval(low: float | None, high: float | None, sign: str = "") -> str:
    """Both ends in per cent or points, as in 42.31 to 43.63; `sign="+"` writes their signs."""
    return NONE if low is None or high is None else f"{100 * low:{sign}.2f} to {100 * high:{sign}.2f}"


def difference(figures: Difference) -> str:
    """A difference with its interval, as in +1.61 points (95 % interval +0.35 to +2.87, p = 0.012)."""
    return (
        f"{points(figures.difference)} points (95 % interval {interval(figures.low, figures.high, '+')}, {p_value(figures.p)})"
    )


def p_value(p: float | None) -> str:
    """As in p = 0.012; where nothing varies, that."""
    if p is None:
        return "no spread to judge by"
    if p < 0.001 or p >= 0.995:
        return "p < 0.001" if p < 0.001 else "p > 0.99"
    digits = 4 if f"{p:.3f}" == f"{SIGNIFICANCE:.3f}" else 3  # so that one sees on which side it is
    return f"p = {p:.{digits}f}"


def rate(value: float | None) -> str:
    """A learning rate to six decimals at most: 0.000254, 0.01."""
    return NONE if value is None else f"{value:.6f}".rstrip("0").rstrip(".") or "0"


def share(value: float) -> str:
    """A fraction in per cent, to two digits or whole, as in 14 or 0.031."""
    return f"{100 * value:.0f}" if value >= 0.01 else f"{100 * value:.2g}"


def listed(items: Sequence[Any]) -> str:
    """As in a, b and c."""
    texts = [str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}" if texts else "none"


def whose(names: Sequence[str], groups: Sequence[Group]) -> str:
    """The recipes that something is of, as in a, b; all where it is of all of more than two."""
    return "all" if len(names) == len(groups) > 2 else ", ".join(names)


def count(number: int, noun: str) -> str:
    """As in 1 run, 3 runs."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def transition(event: Event) -> str:
    """What changes, as in dropout 0.3 -> 0.2."""
    return f"{MOVING[event.name].label} {setting(event.name, event.before)} -> {setting(event.name, event.after)}"


def setting(name: str, text: str) -> str:
    """The value of a hyperparameter; a 0 that turns it off is called so."""
    return "off" if text == "0" and name != "learning_rate" else text


def position(step: int, timeline: Timeline) -> str:
    """Where update `step` (from 0) is, as in epoch 51, or epoch 1 + 98 updates."""
    epoch, within = divmod(step, timeline.steps_per_epoch)
    return f"epoch {epoch + 1}" + (f" + {count(within, 'update')}" if within else "")


def epochs_of(group: Group, which: str) -> str:
    """The last or best epochs of the runs that count; one number if they agree, their range if they are many."""
    epochs = [measures.row(run, which).epoch for run in group.counted]
    if len(epochs) > MOST_SINGLE and len(set(epochs)) > 1:
        return f"{min(epochs)} to {max(epochs)}, median {statistics.median_low(epochs)}"
    return str(epochs[0]) if len(set(epochs)) == 1 else ", ".join(map(str, epochs))


def spread_note(groups: Sequence[Group]) -> str:
    """What the figures of recipes with several runs are; empty if there are none."""
    return "Mean ± standard deviation over the seeds where n > 1. " if any(len(group.counted) > 1 for group in groups) else ""


def best_note(groups: Sequence[Group]) -> str:
    """Why no figures of a best epoch stand beside those of the last; empty if they do."""
    return " The best epoch was the last one of every run." if measures.best_is_last(groups) else ""


def machine(run: Run) -> str:
    """What a run was made on."""
    if not run.headers:
        return "Google Colab with a GPU" if run.log else NOT_RECORDED
    return describe_hardware(run.headers[0].hardware)


def operations(number: float | None) -> str:
    """As in 6.4e+18."""
    return NONE if number is None else f"{number:.2e}"


def duration(seconds: float | None) -> str:
    """As in 42.1 s, 12.3 min, 5.25 h."""
    if seconds is None:
        return NONE
    size, unit = (3600, "h") if seconds >= 5400 else (60, "min") if seconds >= 120 else (1, "s")
    return f"{seconds / size:.3g} {unit}"


def conditions(group: Group) -> str:
    """What the training images of the last epoch are like, and the dropout."""
    if group.timeline is None:
        return f"images whose augmentation is {NOT_RECORDED}"
    row = group.timeline.table()[min(group.timeline.epochs, group.counted[0].last.epoch) - 1]
    mixing = f"mixup alpha {row['mixup_alpha']:g}" if row["mixup_alpha"] else "no mixup"
    mixing += f", CutMix for {row['cutmix_probability']:.0%} of the batches" if row["cutmix_probability"] else ""
    return f"images with augmentation “{row['augmentation']}”, {mixing} and dropout {row['dropout']:g}"


def thirds(cycle: RateCycle) -> str:
    """Test accuracy by place in the saw-tooth of the rate; empty where that is not known."""
    (low, lower), (high, upper) = cycle.low_third, cycle.high_third
    if lower is None or upper is None:
        return ""
    return (
        f"{percent(lower)} % where the rate was in the lowest third of its range, {percent(upper)} % where it was in the "
        f"highest (means over {low} and {high} of the last {cycle.tail} epochs)"
    )
