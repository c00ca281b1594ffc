"""The choice among the recipes of a grid, on the hold-out, and the report of it.

Of many recipes the best on the test set would be flattered by the choice. So it is chosen on the hold-out, and of the one that
is chosen the test accuracy is shown, once: the test images had no part in the choice. Those of the others are not shown.
"""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wrn_jax.report import build, formats, measures, statistics, writing
from wrn_jax.report.formats import NONE, listed
from wrn_jax.report.render.blocks import Block, Bullets, Document, Section, Table, Text
from wrn_jax.report.runs import Group
from wrn_jax.report.sections import configuration, curves, descent
from wrn_jax.studies.design import Design

JUDGED = "valid_accuracy"


@dataclasses.dataclass(frozen=True)
class Choice:
    """The recipes of a grid by their accuracy on the hold-out.

    Attributes:
      order: the recipes that have a finished epoch, the best first.
      chosen: the one that is chosen; None as long as runs are left, or where each has a run that diverged.
      sentence: what came of it.
    """

    order: tuple[Group, ...]
    chosen: Group | None
    sentence: str


def reach(design: Design, groups: Sequence[Group], is_over: bool) -> Choice:
    """The choice among recipes with the runs that count; `is_over`: no run is left."""
    order = tuple(sorted(groups, key=lambda group: -_mean(group)))
    whole = [group for group in order if len(group.runs) == design.all_seeds and all(run.finished for run in group.runs)]
    first = order[0]
    if not is_over:
        accuracy = _validation(first)
        return Choice(
            order, None, f"**Nothing is chosen yet**, since runs are left. So far {first.name} is ahead ({accuracy})."
        )
    if not whole:
        return Choice(order, None, "**No recipe is chosen**: each has a run that did not come to its end.")
    chosen = whole[0]
    test = statistics.summarise(measures.values(chosen, "last"))
    interval = "" if test.low is None else f"; 95 % interval {formats.interval(test.low, test.high)}"
    sentence = (
        f"**{chosen.name} is chosen** on the hold-out, of {len(design.recipes)} recipes ({_validation(chosen)}). Its test "
        f"accuracy after the last epoch is **{formats.spread(test)} %** (n = {test.n}{interval})."
    )
    return Choice(order, chosen, sentence)


def _mean(group: Group) -> float:
    return statistics.summarise(measures.values(group, "last", JUDGED)).mean


def _validation(group: Group) -> str:
    figures = measures.values(group, "last", JUDGED)
    return f"{formats.values(figures)} % validation accuracy after the last epoch, n = {len(figures)}"


def write(design: Design, choice: Choice, operations: Mapping[str, float], study: Sequence[Block], folder: Path) -> None:
    """Writes the report of a grid; `study` says how far it is. Raises UserError."""
    groups = sorted(choice.order, key=lambda group: [recipe.name for recipe in design.recipes].index(group.name))
    notes = [Text(text, "warning") for text in build.unfinished(groups)]
    if averaged := [group.name for group in groups if any(row.network == "average" for run in group.runs for row in run.rows)]:
        notes.append(
            Text(f"Figures of {listed(averaged)} are of the weight average, from the epoch on where it begins.", "note")
        )
    if choice.chosen:
        text = (
            "The validation accuracy of the one that is chosen is the highest of many, which flatters it; its test accuracy "
            "is not flattered, since the test images had no part in the choice. Those of the others are left out, so that "
            "nobody chooses by them."
        )
        notes.append(Text(text, "note"))
    sections = [
        Section("Summary", [Text(choice.sentence), *_curves(groups), table(choice, operations), *notes]),
        Section("The study", study),
        Section("Value by value", _by_value(design, groups), folded=True),
        Section("Configuration", [configuration.table(groups)], folded=True),
        Section("Descent", descent.descent(groups), folded=True),
        Section("How to reproduce it", [build.runs_made(groups), *_further(choice)], folded=True),
    ]
    document = Document(f"Grid over {listed(list(design.grid or {}))}", [section for section in sections if section.blocks])
    writing.write_files(document, figures(design, choice), folder)


def _curves(groups: Sequence[Group]) -> list[Block]:
    return [plot for plot in curves.curves(groups) if plot.name == JUDGED]


def table(choice: Choice, operations: Mapping[str, float]) -> Table:
    """What the recipes reach on the hold-out and cost, the best first."""
    first, rows = choice.order[0], []
    best = measures.values(first, "last", JUDGED)
    for group in choice.order:
        values = measures.values(group, "last", JUDGED)
        summary, behind = statistics.summarise(values), NONE
        if group is not first:
            welch = statistics.welch(values, best) if min(len(values), len(best)) > 1 else None
            behind = formats.points(summary.mean - _mean(first))
            behind += f" ({formats.interval(welch.low, welch.high, '+')})" if welch is not None else ""
        rows.append([
            group.name, str(summary.n), formats.spread(summary), formats.interval(summary.low, summary.high), behind,
            formats.operations(measures.operations(group, operations)), formats.duration(measures.run_seconds(group)),
        ])  # fmt: skip
    heads = ("recipe", "runs (n)", "validation accuracy, last epoch (%)", "95 % interval (%)", f"against {first.name} (points)",
             "operations of a run", "time of a run")  # fmt: skip
    note = (
        f"The most accurate first. {formats.spread_note(choice.order)}In brackets: 95 % interval of the difference (Welch), "
        "not adjusted for the number of recipes. Intervals are over the seeds; none where n = 1."
    )
    marked = frozenset({choice.order.index(choice.chosen)} if choice.chosen else ())
    return Table("What the recipes reach on the hold-out, and what they cost", heads, rows, marked, note)


def _by_value(design: Design, groups: Sequence[Group]) -> list[Block]:
    """The mean over all variants that have a value, of each key; nothing where one key is varied, whose variants say it all."""
    grid, means = design.grid or {}, {group.name: _mean(group) for group in groups}
    rows = []
    for key, texts in grid.items() if len(grid) > 1 else ():
        for text in texts:
            names = [recipe.name for recipe in design.recipes if f"--config.{key}={text}" in recipe.overrides]
            known = [means[name] for name in names if name in means]
            rows.append([key, text, str(len(known)), formats.percent(sum(known) / len(known)) if known else NONE])
    heads = ("key", "value", "recipes", "validation accuracy, last epoch, mean over these (%)")
    return [Table("The recipes value by value", heads, rows)] if rows else []


def _further(choice: Choice) -> list[Block]:
    """What may be done with the recipe that is chosen."""
    if choice.chosen is None:
        return []
    folder = choice.chosen.runs[0].source
    return [Bullets([f"python -m wrn_jax.evaluate --workdir {shlex.quote(folder)} --checkpoint last"])]


def plan(design: Design) -> list[str]:
    """What was written down before the first run."""
    varied = "; ".join(f"{key} = {listed(texts)}" for key, texts in (design.grid or {}).items())
    return [
        f"Written down before the first run: a grid of {len(design.recipes)} recipes ({varied}), seeds 0 to "
        f"{design.seeds - 1} of each, judged by the {design.measure}.",
        f"Chosen is {design.test}.",
        "The runs of a seed share the order of the data, the random draws and the hold-out.",
    ]


def figures(design: Design, choice: Choice) -> Any:
    """The choice as plain JSON data."""
    chosen = choice.chosen
    tree = {
        "format": 1,
        "grid": design.grid,
        "chosen": chosen.name if chosen else None,
        "validation_accuracy": {
            group.name: statistics.summarise(measures.values(group, "last", JUDGED)) for group in choice.order
        },
        "test_accuracy": statistics.summarise(measures.values(chosen, "last")) if chosen else None,
    }
    return writing.plain(tree)
