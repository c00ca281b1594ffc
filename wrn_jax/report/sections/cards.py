"""What a recipe is, costs and reaches: the cards, the table that a report opens with, and accuracy against cost."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from wrn_jax.config.levels import by_strength
from wrn_jax.config.moving import MOVING
from wrn_jax.config.timeline import Timeline, level_course
from wrn_jax.report import formats, measures, statistics
from wrn_jax.report.formats import NONE, NOT_RECORDED
from wrn_jax.report.render.blocks import Block, Card, Cards, Plot, Series, Strip, Table, Text
from wrn_jax.report.runs import Group

_MOST_PARTS = 340
"""Parts of a strip, of which more could not be seen."""


def results(groups: Sequence[Group], operations: Mapping[str, float]) -> Table:
    """Every recipe in a row, the most accurate first: what it reaches, how far behind the first it is, what it costs."""
    order = sorted(groups, key=lambda group: -measures.mean(group, "last"))
    pairs = {(pair.first, pair.second): pair for pair in measures.compare(groups, "last")}
    first, rows = order[0], []
    for group in order:
        summary, behind = statistics.summarise(measures.values(group, "last")), NONE
        if group is not first:
            turned = (group.name, first.name) not in pairs
            pair = pairs[(first.name, group.name) if turned else (group.name, first.name)]
            welch = pair.welch.reverse() if pair.welch is not None and turned else pair.welch
            behind = formats.points(-pair.difference if turned else pair.difference)
            behind += f" ({formats.interval(welch.low, welch.high, '+')})" if welch is not None else ""
        rows.append([
            group.name, str(summary.n), formats.spread(summary), formats.interval(summary.low, summary.high), behind,
            formats.epochs_of(group, "last") if len({run.last.epoch for run in group.counted}) == 1 else "unlike",
            formats.operations(measures.operations(group, operations)), formats.duration(measures.run_seconds(group)),
        ])  # fmt: skip
    heads = ["recipe", "runs (n)", "test accuracy, last epoch (%)", "95 % interval (%)", f"against {first.name} (points)",
             "epochs", "operations of a run", "time of a run"]  # fmt: skip
    kept = [index for index in range(len(heads)) if index < 2 or any(row[index] != NONE for row in rows)]
    note = f"The most accurate first. {formats.spread_note(groups)}"
    if any(pair.welch is not None for pair in pairs.values()):
        note += "In brackets: 95 % interval of the difference, of that pair alone, not adjusted for looks and pairs. "
    if any(len(group.counted) > 1 for group in groups):
        single = any(len(group.counted) == 1 for group in groups)
        note += f"Intervals are over the seeds{'; none where n = 1' * single}."
    return Table(
        "What the recipes reach and cost", [heads[i] for i in kept], [[row[i] for i in kept] for row in rows], note=note.strip()
    )


def cards(groups: Sequence[Group], operations: Mapping[str, float]) -> Cards:
    """A card for each recipe."""
    return Cards([_card(place, group, measures.operations(group, operations)) for place, group in enumerate(groups)])


def _card(place: int, group: Group, operations: float | None) -> Card:
    timeline, summary = group.timeline, statistics.summarise(measures.values(group, "last"))
    interval = "" if summary.low is None else f"; 95 % interval {formats.interval(summary.low, summary.high)}"
    reaches = f"{formats.spread(summary)} % test accuracy after the last epoch (n = {summary.n}{interval})"
    best = formats.values(measures.values(group, "best"))
    facts = [("reaches", reaches), ("best epoch", f"{best} %, chosen on {formats.JUDGES[group.judge]}")]
    whole, share, updates = group.runs[0].epochs, measures.share_trained(group), measures.updates(group)
    epochs = f"{whole} epochs" if share == 1 else f"{share * whole:.4g} of {whole} epochs"
    steps = [] if updates is None else [f"{updates:,} updates"]
    work = [] if operations is None else [f"{formats.operations(operations)} operations"]
    facts.append(("costs", ", ".join([epochs, *steps, *work])))
    seconds, rate, of_run = (
        measures.typical(group, "seconds"),
        measures.typical(group, "images_per_second"),
        measures.run_seconds(group),
    )
    speed = [
        *([] if seconds is None else [f"{formats.duration(seconds)} an epoch"]),
        *([] if rate is None else [f"{rate:,.0f} images per second"]),
        *([] if of_run is None else [f"{formats.duration(of_run)} a run"]),
    ]
    facts.append(("takes", ", ".join(speed) or NOT_RECORDED))
    places = [formats.machine(run) + "".join(f", {header.precision}" for header in run.headers[:1]) for run in group.runs]
    facts.append(("on", "; ".join(dict.fromkeys(places))))
    constant = [] if timeline is None else [name for name in measures.shown([group]) if not _moves(timeline, name)]
    if timeline is not None and constant:
        texts = [f"{MOVING[name].label} {timeline.phases([name])[-1].after}" for name in constant]
        facts.append(("does not move", ", ".join(texts)))
    strips: list[Strip] = []
    if timeline is not None:
        strips = [_strip(timeline, name) for name in measures.shown([group]) if name not in constant]
    what = formats.listed([strip.label for strip in strips])
    return Card(
        f"recipe-{place + 1}",
        group.name,
        place,
        f"Over the epochs of {group.name}: {what}, and test accuracy",
        [*strips, _reached(group)],
        facts,
    )


def _moves(timeline: Timeline, name: str) -> bool:
    return name == "learning_rate" or bool(np.ptp(timeline.values[name].astype(float)))


def _strip(timeline: Timeline, name: str) -> Strip:
    """A moving value: its lowest and highest in each of equal parts of the run, or between its changes."""
    value, edges, column = MOVING[name], timeline.edges, timeline.values[name].astype(float)
    if value.is_level:
        span = " → ".join(timeline.levels_at(column))
        column = level_course(timeline, by_strength(timeline.levels))
    else:
        low, high = float(column.min()), float(column.max())
        span = f"{low if abs(low) > 1e-5 * high else 0.0:.3g} to {high:.3g}"
    changes = np.flatnonzero(np.diff(column)) + 1
    if len(changes) >= _MOST_PARTS:
        changes = np.unique(np.linspace(0, len(column), _MOST_PARTS + 1).astype(int))[1:-1]
    parts = np.split(column, changes)
    at = [float(edges[0]), *(float(edges[change]) for change in changes), float(edges[-1])]
    return Strip(value.label, span, at, [float(part.min()) for part in parts], [float(part.max()) for part in parts])


def _reached(group: Group) -> Strip:
    """The test accuracy, with the lowest and the highest run."""
    _, low, high = (100 * line for line in measures.mean_curve(group, lambda row: row.test_accuracy))
    label = "test accuracy (%)" + (", lowest to highest run" if len(group.runs) > 1 else "")
    span = f"{low.min():.2f} to {high.max():.2f}"
    return Strip(label, span, range(len(low) + 1), low.tolist(), high.tolist())


def costs(groups: Sequence[Group], operations: Mapping[str, float]) -> list[Block]:
    """Speed and cost side by side, and accuracy against the first of three costs that at least two recipes have."""
    columns: dict[str, Callable[[Group], float | None]] = {
        "operations of a run": lambda group: measures.operations(group, operations),
        "seconds of a run": measures.run_seconds,
        "epochs": lambda group: float(np.mean([run.last.epoch for run in group.counted])),
    }
    known = {name: {group.name: find(group) for group in groups} for name, find in columns.items()}
    name = next((name for name, costs in known.items() if sum(cost is not None for cost in costs.values()) > 1), "epochs")
    cost = known[name]
    points = [(group, value) for group in groups if (value := cost[group.name]) is not None]
    front = measures.not_dominated([(value, measures.mean(group, "last")) for group, value in points])
    efficient = [points[index][0].name for index in front]
    rows = [
        [
            group.name, formats.values(measures.values(group, "last")),
            formats.operations(measures.operations(group, operations)),
            formats.duration(measures.typical(group, "seconds")), _rate(group), formats.duration(measures.run_seconds(group)),
            "yes" if group.name in efficient else NONE if cost[group.name] is None else "no",
            "; ".join(dict.fromkeys(formats.machine(run) for run in group.runs)),
        ]
        for group in groups
    ]  # fmt: skip
    heads = ("recipe", "test accuracy, last epoch (%)", "operations of a run", "time of an epoch", "images per second",
             "time of a run", "none cheaper is as accurate", "hardware")  # fmt: skip
    note = (
        "Operations: multiplications and additions of convolutions and matrix products, the backward pass counted twice. Times "
        f"include evaluation and compare on like hardware only. “Cheaper” counts {name}; whether a lead in accuracy is real, "
        "the verdict says."
    )
    table = Table("Speed and cost", heads, rows, frozenset(i for i, row in enumerate(rows) if row[-2] == "yes"), note)
    return [*_pareto(points, front, name), table, *([] if len(points) == len(groups) else [_not_known(groups, points)])]


def _rate(group: Group) -> str:
    rate = measures.typical(group, "images_per_second")
    return NONE if rate is None else f"{rate:,.0f}"


def _not_known(groups: Sequence[Group], points: Sequence[tuple[Group, float]]) -> Text:
    missing = [group.name for group in groups if group not in [known for known, _ in points]]
    return Text(f"Not in the plot, since the cost is not recorded: {formats.listed(missing)}.", "note")


def _pareto(points: Sequence[tuple[Group, float]], front: Sequence[int], name: str) -> list[Plot]:
    """Accuracy against cost, with the recipes than which none cheaper is as accurate joined."""
    if len(points) < 2:
        return []
    values, unit = [value for _, value in points], 1.0
    if name.startswith("operations"):
        power = 3 * int(math.log10(max(values)) // 3)
        name, unit = f"{name} (10^{power})", 10.0**power
    series = []
    for group, value in points:
        summary = statistics.summarise(measures.values(group, "last"))
        low, high = (math.nan if end is None else 100 * end for end in (summary.low, summary.high))
        interval = {} if math.isnan(low) else {"low": [low], "high": [high]}
        series.append(Series(group.name, [value / unit], [100 * summary.mean], **interval))
    ends = [(points[index][1] / unit, 100 * measures.mean(points[index][0], "last")) for index in front]
    if len(ends) > 1:
        series.append(Series("none cheaper is as accurate", *(list(line) for line in zip(*ends, strict=True))))
    description = (
        f"Test accuracy after the last epoch against {name}: mean over the seeds, with its 95 % interval. Best is on the left "
        "and above."
    )
    return [
        Plot("pareto", "Accuracy against cost", name, "test accuracy (%)", series, description=description, points=True,
             log_x=max(values) > 10 * min(values) > 0)
    ]  # fmt: skip
