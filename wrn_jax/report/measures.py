"""The figures of a comparison, computed from groups of runs; nothing here is text or choice of words.

`which` is the epoch that is looked at: "last", or "best" as the run's own judge chose it. Accuracies and gaps are fractions.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wrn_jax.config.rates import peak_after_warm_up, restarts
from wrn_jax.config.schedules import Linear
from wrn_jax.config.timeline import Event, Timeline, shown_in
from wrn_jax.report import statistics
from wrn_jax.report.runs import Evaluation, Group, Run
from wrn_jax.report.statistics import Difference, Discordance, Summary
from wrn_jax.training.records import EpochRow

WHICH = ("last", "best")


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two recipes over their seeds.

    Attributes:
      counts: runs of each.
      difference: mean of the first minus mean of the second.
      welch: over seeds; None where one has a single run.
      adjusted: Welch's p after the adjustment for looks before the end of a study, and Holm's over all pairs of recipes that
        have finished runs; None where not tested.
      paired: over the seeds that both have; None for less than two.
      seeds: these seeds.
    """

    first: str
    second: str
    counts: tuple[int, int]
    difference: float
    welch: Difference | None
    adjusted: float | None
    paired: Difference | None
    seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ImagePair:
    """Two runs on the same images."""

    first: str
    second: str
    found: Difference
    discordance: Discordance


@dataclasses.dataclass(frozen=True)
class Images:
    """Two recipes on the same images: run by run, and all together; or the reason why not."""

    first: str
    second: str
    which: str
    count: int = 0
    pairs: tuple[ImagePair, ...] = ()
    by_seed: bool = False
    together: Difference | None = None
    networks: tuple[int, int] = (0, 0)
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Selection:
    """What choosing an epoch does to a run's test accuracy.

    Attributes:
      best, best_epoch: the epoch that its judge chose.
      top, top_epoch: the epoch of the highest test accuracy.
      tail_epochs, tail_mean, tail_sd: number of the last epochs, and their test accuracies.
    """

    run: str
    judge: str
    last: float
    last_epoch: int
    best: float
    best_epoch: int
    top: float
    top_epoch: int
    tail_epochs: int
    tail_mean: float
    tail_sd: float | None


@dataclasses.dataclass(frozen=True)
class RateAt:
    """Where in the cycle of the rate the evaluation after an epoch fell.

    Attributes:
      accuracy: of the test images, mean over the runs.
      before, after: rate of the update before it and of the one after it.
      low, high, rises: lowest and highest rate of the epoch, and whether it rose again within the epoch.
    """

    epoch: int
    accuracy: float
    before: float
    after: float
    low: float
    high: float
    rises: bool

    @property
    def position(self) -> float:
        """0 at the lowest rate of the epoch, 1 at the highest."""
        return (self.before - self.low) / (self.high - self.low) if self.high > self.low else 0.0


@dataclasses.dataclass(frozen=True)
class RateCycle:
    """The rate around the evaluations of a recipe, one for each epoch.

    Attributes:
      peak, peak_after: highest rate of the whole run, and after the warm-up.
      restarts: how often a warm restart or a wave began a new cycle.
      saw_tooth: whether the rate rises and falls by a factor of 3 within most of the last epochs.
      tail: how many last epochs, a fifth of all, the figures below are of; 0 without a saw-tooth or where they would be
        fewer than ten.
      correlation: rank correlation of the rate before the evaluation with test accuracy.
      low_third, high_third: (number of epochs, mean test accuracy) where the rate was in that third of the epoch's range.
    """

    evaluations: tuple[RateAt, ...]
    peak: float
    peak_after: float
    restarts: int
    saw_tooth: bool
    tail: int
    correlation: float | None
    low_third: tuple[int, float | None]
    high_third: tuple[int, float | None]


def logs(groups: Sequence[Group]) -> dict[str, Group]:
    """The published logs among the recipes, by their own names."""
    return {group.log: group for group in groups if group.log is not None}


def shown(groups: Sequence[Group]) -> list[str]:
    """The moving values that any of the recipes shows."""
    return shown_in(group.timeline for group in groups if group.timeline is not None)


def row(run: Run, which: str) -> EpochRow:
    """The row of the last or of the best epoch."""
    return run.last if which == "last" else run.best


def best_is_last(groups: Sequence[Group]) -> bool:
    """Whether the last epoch is the best one of every run that counts."""
    return all(run.best.epoch == run.last.epoch for group in groups for run in group.counted)


def told_apart(groups: Sequence[Group]) -> tuple[str, ...]:
    """The epochs that differ: `WHICH`, or the last one alone where it is the best one of every run."""
    return WHICH[:1] if best_is_last(groups) else WHICH


def values(group: Group, which: str, quantity: str = "test_accuracy") -> list[float]:
    """A quantity of each of the runs that count, one that every row has."""
    return [getattr(row(run, which), quantity) for run in group.counted]


def mean(group: Group, which: str) -> float:
    """The mean test accuracy of the runs that count."""
    return float(np.mean(values(group, which)))


def augmented_gaps(group: Group, which: str) -> list[float]:
    """Training accuracy, counted on augmented, mixed images with dropout on, minus test accuracy, of each run."""
    return [row(run, which).train_accuracy - row(run, which).test_accuracy for run in group.counted]


def typical(group: Group, quantity: str) -> float | None:
    """The median over all epochs of the runs that count of `seconds` or `images_per_second`; None where none is recorded."""
    values = [value for run in group.counted for row in run.rows if (value := getattr(row, quantity)) is not None]
    return float(np.median(values)) if values else None


def run_seconds(group: Group) -> float | None:
    """Seconds that the epochs of a run take, mean over the runs that count; None where they are not recorded."""
    times = [[row.seconds for row in run.rows] for run in group.counted]
    sums = [sum(seconds) for run in times if len(seconds := [value for value in run if value is not None]) == len(run)]
    return float(np.mean(sums)) if len(sums) == len(times) else None


def share_trained(group: Group) -> float:
    """The share of its epochs that a run comes to, mean over the finished runs; below 1 where some ended early."""
    return float(np.mean([run.last.epoch / run.epochs for run in group.counted])) if group.finished else 1.0


def updates(group: Group) -> int | None:
    """The updates of a run, mean over the finished runs; None where the recipe is not known."""
    return None if group.timeline is None else round(group.timeline.steps * share_trained(group))


def operations(group: Group, of_recipes: Mapping[str, float]) -> float | None:
    """The operations of a run, mean over the finished runs, by those of a whole run of each recipe; None where not known."""
    whole = of_recipes.get(group.name)
    return None if whole is None else whole * share_trained(group)


def not_dominated(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of those (cost, accuracy) than which none is both cheaper, or as cheap, and more accurate; by rising cost."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def summary(values: Sequence[float] | None) -> Summary | None:
    """As `statistics.summarise`; None of nothing."""
    return statistics.summarise(values) if values else None


def compare(groups: Sequence[Group], which: str) -> list[Pair]:
    """All pairs of recipes by test accuracy over their seeds, first minus second."""
    pairs = [_pair(first, second, which) for first, second in itertools.combinations(groups, 2)]
    finished = {group.name for group in groups if group.finished}
    tested = {
        (pair.first, pair.second): pair.welch.p
        for pair in pairs
        if pair.welch is not None and pair.welch.p is not None and {pair.first, pair.second} <= finished
    }
    if looks := max((group.looks for group in groups), key=len):
        tested = {names: statistics.after_looks(p, looks) for names, p in tested.items()}
    adjusted = dict(zip(tested, statistics.holm(list(tested.values())), strict=True))
    return [dataclasses.replace(pair, adjusted=adjusted.get((pair.first, pair.second))) for pair in pairs]


def _pair(first: Group, second: Group, which: str) -> Pair:
    a, b = values(first, which), values(second, which)
    sides = [{run.seed: row(run, which).test_accuracy for run in group.counted if run.seed is not None}
             for group in (first, second)]  # fmt: skip
    seeds = tuple(sorted(sides[0].keys() & sides[1].keys()))
    paired = statistics.paired(*([side[seed] for seed in seeds] for side in sides)) if len(seeds) > 1 else None
    welch = statistics.welch(a, b) if min(len(a), len(b)) > 1 else None
    return Pair(first.name, second.name, (len(a), len(b)), float(np.mean(a) - np.mean(b)), welch, None, paired, seeds)


def detectable(first: Group, second: Group, which: str) -> float | None:
    """The difference that as many runs show with a power of 80 %, had both recipes the spread measured; None for one run."""
    sides = [values(group, which) for group in (first, second)]
    seeds = len(sides[0]), len(sides[1])
    if min(seeds) < 2:
        return None
    return statistics.detectable(seeds, math.sqrt(float(np.mean([np.var(side, ddof=1) for side in sides])))) or None


def evaluations(group: Group, which: str) -> list[tuple[Run, Evaluation]]:
    """The runs that count whose last or best epoch has been evaluated."""
    pairs = [(run, run.evaluation(row(run, which).epoch)) for run in group.counted]
    return [(run, evaluation) for run, evaluation in pairs if evaluation is not None]


def compare_images(first: Group, second: Group, which: str) -> Images:
    """Two recipes on the same test images, from saved predictions."""
    sides = [
        [(run, saved.correct, saved.digest) for run, saved in evaluations(group, which) if saved.correct is not None]
        for group in (first, second)
    ]
    for group, side in zip((first, second), sides, strict=True):
        if not side:
            return Images(first.name, second.name, which, reason=f"no predictions of {group.name} after the {which} epoch")
    if len({digest for side in sides for _, _, digest in side}) > 1:
        return Images(first.name, second.name, which, reason="the predictions are of different images")
    a, b = ({run.seed: (run, correct) for run, correct, _ in side if run.seed is not None} for side in sides)
    shared = sorted(a.keys() & b.keys())
    couples = [(a[seed], b[seed]) for seed in shared] or [(left[:2], right[:2]) for left, right in zip(*sides, strict=False)]
    pairs = tuple(_image_pair(*left, *right) for left, right in couples)
    correct = [np.stack([correct for _, correct, _ in side]) for side in sides]
    networks, count = (len(correct[0]), len(correct[1])), correct[0].shape[1]
    return Images(
        first.name, second.name, which, count, pairs, bool(shared), statistics.over_images(*correct), networks
    )  # fmt: skip


def _image_pair(first: Run, first_correct: np.ndarray, second: Run, second_correct: np.ndarray) -> ImagePair:
    only_first, only_second = int((first_correct & ~second_correct).sum()), int((second_correct & ~first_correct).sum())
    interval = statistics.over_images(first_correct[None], second_correct[None])
    return ImagePair(first.name, second.name, interval, statistics.mcnemar(only_first, only_second))


def selection(run: Run) -> Selection:
    """Best, highest and last epoch of a run."""
    length = min(len(run.rows), max(3, math.ceil(len(run.rows) / 10)))
    tail = statistics.summarise([row.test_accuracy for row in run.rows[-length:]])
    last, best, top = run.last, run.best, run.top
    return Selection(
        run.name, run.judge, last.test_accuracy, last.epoch, best.test_accuracy, best.epoch,
        top.test_accuracy, top.epoch, length, tail.mean, tail.sd,
    )  # fmt: skip


def mean_curve(group: Group, value: Callable[[EpochRow], float | None]) -> list[np.ndarray]:
    """Mean, lowest and highest value by epoch, over the runs that have the epoch; NaN where none has the value."""
    table = np.full((len(group.runs), max(len(run.rows) for run in group.runs)), np.nan)
    for index, run in enumerate(group.runs):
        table[index, : len(run.rows)] = [value(row) for row in run.rows]
    known = np.ma.masked_invalid(table)
    return [line.filled(np.nan) for line in (known.mean(axis=0), known.min(axis=0), known.max(axis=0))]


def accuracy_at(group: Group, epoch: int) -> float | None:
    """Mean test accuracy after `epoch` over the runs that have it."""
    accuracies = [run.rows[epoch - 1].test_accuracy for run in group.runs if len(run.rows) >= epoch]
    return float(np.mean(accuracies)) if accuracies else None


def falls(run: Run) -> tuple[int, float, int]:
    """(number of epochs whose test accuracy is below that of the epoch before, largest such fall, its epoch or 0)."""
    steps = np.diff([row.test_accuracy for row in run.rows])
    if not (steps < 0).any():
        return 0, 0.0, 0
    worst = int(np.argmin(steps))
    return int((steps < 0).sum()), float(-steps[worst]), worst + 2


def first_epoch_at(run: Run, accuracy: float) -> int | None:
    """The first epoch whose test accuracy reaches `accuracy`."""
    return next((row.epoch for row in run.rows if row.test_accuracy >= accuracy), None)


def warm_up(timeline: Timeline) -> tuple[Linear, int] | None:
    """The rising line that the rate begins with, perhaps after one other phase, and the update (from 0) at which it ends."""
    pieces = timeline.beginnings("learning_rate")
    for index, (start, piece) in enumerate(pieces[:2]):
        if isinstance(piece, Linear) and piece.end > piece.start:
            ends = [start + timeline.clock.length(piece.over), timeline.steps, *[later for later, _ in pieces[index + 1 :]]]
            return piece, min(ends)
    return None


def transitions(timeline: Timeline) -> list[Event]:
    """The transitions of a recipe; a first phase of a single update counts as the beginning of the next."""
    return [event for event in timeline.events() if event.step > 1]


@functools.lru_cache(maxsize=64)
def rate_cycle(group: Group) -> RateCycle | None:
    """The rate around the evaluations of a recipe; None where the recipe is not known."""
    timeline = group.timeline
    if timeline is None:
        return None
    rates = timeline.values["learning_rate"].astype(float)
    accuracies, _, _ = mean_curve(group, lambda row: row.test_accuracy)
    course: list[RateAt] = []
    for epoch, row in enumerate(timeline.table()[: max(len(run.rows) for run in group.counted)], 1):
        begin, end = timeline.index([(epoch - 1) * timeline.steps_per_epoch, epoch * timeline.steps_per_epoch])
        within = rates[begin:end]
        before, low, high = (float(rate) for rate in (within[-1], within.min(), within.max()))
        after, rises = float(row["learning_rate_next"]), bool((np.diff(within) > 0).any())
        course.append(RateAt(epoch, float(accuracies[epoch - 1]), before, after, low, high, rises))
    tail = course[-math.ceil(len(course) / 5) :]
    saw_tooth = 2 * sum(place.rises and place.high >= 3 * place.low for place in tail) > len(tail)
    tail = tail if saw_tooth and len(tail) >= 10 else []
    correlation = statistics.rank_correlation([place.before for place in tail], [place.accuracy for place in tail])
    thirds = [
        [place.accuracy for place in tail if place.position <= 1 / 3],
        [place.accuracy for place in tail if place.position >= 2 / 3],
    ]
    low_third, high_third = ((len(third), float(np.mean(third)) if third else None) for third in thirds)
    return RateCycle(
        tuple(course), float(rates.max()), peak_after_warm_up(rates), len(restarts(rates)), saw_tooth, len(tail), correlation,
        low_third, high_third,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Measure:
    """A figure of an evaluation: its name, unit ("%" for a share in 0..1), what is better, and where its JSON object has it."""

    name: str
    unit: str
    better: str
    path: tuple[str, ...]


MEASURES = (
    Measure("test accuracy as evaluated", "%", "higher", ("splits", "test", "accuracy")),
    Measure("top-5 accuracy", "%", "higher", ("splits", "test", "top5")),
    Measure("negative log-likelihood", "nats", "lower", ("splits", "test", "loss")),
    Measure("calibration error", "%", "lower", ("splits", "test", "calibration_error")),
    Measure("temperature, fitted on the hold-out", "", "", ("temperature", "value")),
    Measure("negative log-likelihood at that temperature", "nats", "lower", ("temperature", "loss")),
    Measure("calibration error at that temperature", "%", "lower", ("temperature", "calibration_error")),
    Measure("accuracy with the mirror image's answer averaged in", "%", "higher", ("flip", "accuracy")),
    Measure("accuracy on training images, evaluated as test images are", "%", "", ("splits", "train", "accuracy")),
    Measure("superclass right", "%", "higher", ("superclass_accuracy",)),
    Measure("clean gap", "%", "", ("clean_gap",)),
    Measure("mean corruption accuracy", "%", "higher", ("mean_corruption_accuracy",)),
)


def measured(group: Group, which: str, path: Sequence[str]) -> list[float] | None:
    """A figure of each run that counts, from its evaluation after the last or the best epoch; None if any run lacks it."""
    values = [_at(evaluation.figures, path) for _, evaluation in evaluations(group, which)]
    complete = len(values) == len(group.counted) and all(isinstance(value, int | float) for value in values)
    return [float(value) for value in values] if complete else None


def _at(tree: Any, path: Sequence[str]) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def corruptions(group: Group, which: str) -> dict[str, list[float]]:
    """Mean accuracy over the severities of each kind of corruption, one value for each run; those that all runs have."""
    runs: list[dict[str, list[float]]] = [saved.figures.get("corruptions") or {} for _, saved in evaluations(group, which)]
    if len(runs) < len(group.counted):
        return {}
    names = [name for name in runs[0] if all(kinds.get(name) for kinds in runs)]
    return {name: [float(np.mean(kinds[name])) for kinds in runs] for name in names}


def corruption_sources(groups: Sequence[Group], which: str) -> list[str]:
    """What corrupted images the evaluations used, each way once; with more than one, their accuracies do not compare.

    The same files may lie in unlike places, so of a folder its name counts.
    """
    found: dict[tuple[Any, ...], str] = {}
    for figures in (saved.figures for group in groups for _, saved in evaluations(group, which)):
        if figures.get("corruptions"):
            images, kinds = figures.get("corruption_images"), figures.get("corruptions_in_mean") or ()
            origin = str(figures.get("corruptions_from"))
            number = f"{images:,} test images" if isinstance(images, int) else "test images"
            text = f"{origin}, {number}, mean over {len(kinds)} kinds"
            found.setdefault((origin.partition(" at ")[0], images, *sorted(kinds)), text)
    if len(set(found.values())) < len(found):
        return [f"{text} ({', '.join(kinds)})" for (_, _, *kinds), text in found.items()]
    return list(found.values())
