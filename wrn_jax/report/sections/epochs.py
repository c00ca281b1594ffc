"""The course of the compared recipes: epoch by epoch, their transitions, milestones and checkpoints, and each by itself."""

import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from wrn_jax.config.moving import MOVING
from wrn_jax.config.rates import restarts
from wrn_jax.config.timeline import Timeline
from wrn_jax.report import formats, measures, published_runs
from wrn_jax.report.formats import NONE
from wrn_jax.report.render.blocks import Block, Bullets, Table, Text
from wrn_jax.report.runs import Group, described
from wrn_jax.report.statistics import Summary

_MOST_ROWS = 15
"""Epochs that a table shows one by one."""


def epochs(groups: Sequence[Group]) -> Table:
    """Test accuracy epoch by epoch, differences, and what happened."""
    first, few = groups[0], len(groups) <= formats.MOST_COMPARED
    others = groups[1:] if few else ()
    happened = [events_by_epoch(group, best=few) for group in groups]
    rows, marked = [], set()
    for index, epoch in enumerate(table_epochs(groups)):
        accuracy = measures.accuracy_at(first, epoch)
        here = [events.get(epoch, []) for events in happened]
        cells = [", ".join(texts) or NONE for texts in here] if len(groups) < 3 else [_by_event(groups, here)]
        differences = [formats.points(_minus(accuracy, measures.accuracy_at(other, epoch))) for other in others]
        rows.append([str(epoch), *[_at(group, epoch) for group in groups], *differences, *cells])
        if any("best" in text for texts in here for text in texts):
            marked.add(index)
    differences = [f"{first.name} - {other.name} (points)" for other in others]
    events = [f"events of {group.name}" for group in groups] if len(groups) < 3 else ["events"]
    heads = ["epoch", *[f"{group.name} (%)" for group in groups], *differences, *events]
    note = formats.spread_note(groups) + "Best epochs are marked. " * few
    note += "A change acts from the first update of its epoch on."
    return Table("Test accuracy by epoch", heads, rows, frozenset(marked), note)


def _at(group: Group, epoch: int) -> str:
    return formats.values([run.rows[epoch - 1].test_accuracy for run in group.runs if len(run.rows) >= epoch])


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _by_event(groups: Sequence[Group], here: Sequence[Sequence[str]]) -> str:
    """The events of several recipes, each told once with the recipes that it is of."""
    whose: dict[str, list[str]] = {}
    for group, texts in zip(groups, here, strict=True):
        for text in texts:
            whose.setdefault(text, []).append(group.name)
    told = (f"{text} ({formats.whose(names, groups)})" for text, names in whose.items())
    return "; ".join(told) or NONE


def table_epochs(groups: Sequence[Group]) -> list[int]:
    """The epochs worth a row: 1, 5, every tenth, checkpoints, those around transitions, best and last ones."""
    longest = max(len(run.rows) for group in groups for run in group.runs)
    if longest <= _MOST_ROWS:
        return list(range(1, longest + 1))
    epochs = {1, 5, *range(10, longest + 1, 10)}
    for group in groups:
        if group.timeline is not None:
            epochs |= set(group.timeline.checkpoint_epochs)
            epochs |= {epoch for event in measures.transitions(group.timeline) for epoch in (event.epoch - 1, event.epoch)}
        epochs |= {run.last.epoch for run in group.counted}
        if len(groups) <= formats.MOST_COMPARED:
            epochs |= {epoch for epoch, _ in _best_epochs(group)}
    if {group.log for group in groups} == set(published_runs.LOGS):
        epochs |= set(published_runs.DOCUMENTED_EPOCHS)
    return sorted(epoch for epoch in epochs if 1 <= epoch <= longest)


def events_by_epoch(group: Group, best: bool = True) -> dict[int, list[str]]:
    """What happened in or right after an epoch: checkpoints kept, ends of cycles, transitions, perhaps best epochs."""
    events: list[tuple[int, str]] = []
    if group.timeline is not None:
        events += [(epoch, "checkpoint") for epoch in group.timeline.checkpoint_epochs]
        events += _long_cycles(group.timeline)
        published = _long_cycles(described(group.log)) if group.log else []
        events += [(epoch, f"{text} as published (not executed)") for epoch, text in published]
        for event in measures.transitions(group.timeline):
            within = event.step % group.timeline.steps_per_epoch
            after = f" after {formats.count(within, 'update')}" if within else ""
            events.append((event.epoch, formats.transition(event) + after))
    return _by_epoch([*events, *(_best_epochs(group) if best else ())])


def _by_epoch(events: Iterable[tuple[int, str]]) -> dict[int, list[str]]:
    by_epoch: dict[int, list[str]] = {}
    for epoch, text in events:
        by_epoch.setdefault(epoch, []).append(text)
    return by_epoch


def _best_epochs(group: Group) -> list[tuple[int, str]]:
    best = [run.best.epoch for run in group.counted]
    if len(best) > formats.MOST_SINGLE:
        middle = statistics.median_low(best)
        return [(middle, f"median best epoch of {len(best)} runs ({min(best)} to {max(best)})")]
    return [
        (epoch, "best" + (f" of {best.count(epoch)} of {len(best)} runs" if len(best) > 1 else "")) for epoch in sorted({*best})
    ]


def _long_cycles(timeline: Timeline) -> list[tuple[int, str]]:
    """The ends of the rate's cycles, with the epoch in which each falls; none where the cycles turn within epochs."""
    ends = timeline.sampled[restarts(timeline.values["learning_rate"])]
    if len(ends) > 1 and np.diff(ends).max() < timeline.steps_per_epoch:
        return []
    return [(-(-end // timeline.steps_per_epoch), f"cycle {number} ends") for number, end in enumerate(ends.tolist(), 1)]


def transitions(groups: Sequence[Group]) -> Block:
    """All transitions of all recipes."""
    whose: dict[tuple[str, ...], list[str]] = {}
    for group in groups:
        if group.timeline is None:
            continue
        for event in measures.transitions(group.timeline):
            before, after = (formats.setting(event.name, text) for text in (event.before, event.after))
            change = (formats.position(event.step, group.timeline), MOVING[event.name].label, before, after)
            whose.setdefault(change, []).append(group.name)
    rows = [[formats.whose(names, groups), *change] for change, names in whose.items()]
    unknown = [group.name for group in groups if group.timeline is None]
    note = f"Of {formats.listed(unknown)} none is recorded." if unknown else ""
    if not rows:
        return Text(f"No recipe changes a phase on its way. {note}".strip())
    note = f"A change acts from the first update of the epoch on, or from so many updates later. {note}".strip()
    return Table("Transitions", ("recipe", "from", "hyperparameter", "before", "after"), rows, note=note)


def milestones(group: Group, groups: Sequence[Group]) -> Table:
    """The course of a recipe in a few epochs."""
    rows, before = [], None
    others = [other for other in groups[: 1 if len(groups) > formats.MOST_COMPARED else None] if other is not group]
    for epoch, texts in sorted(milestone_epochs(group).items()):
        accuracy = measures.accuracy_at(group, epoch)
        leads = [formats.points(_minus(accuracy, measures.accuracy_at(other, epoch))) for other in others]
        since = formats.points(_minus(accuracy, before))
        rows.append([str(epoch), formats.percent(accuracy), since, *leads, "; ".join(texts)])
        before = accuracy
    heads = ["epoch", "test accuracy (%)", "since the row above (points)"]
    heads += [f"lead over {other.name} (points)" for other in others]
    note = f"Means of {len(group.runs)} runs." if len(group.runs) > 1 else ""
    return Table(f"Milestones of {group.name}", [*heads, "what"], rows, note=note)


def milestone_epochs(group: Group) -> dict[int, list[str]]:
    """The epochs that mark the course of a recipe, with what they are: quarters, first checkpoint, around transitions, ends."""
    length = max(len(run.rows) for run in group.counted)
    marks = [(round(quarter * length / 4), f"{25 * quarter} % of the epochs") for quarter in (1, 2, 3)]
    if group.timeline is not None:
        marks += [(epoch, "first checkpoint kept") for epoch in group.timeline.checkpoint_epochs[:1]]
        warm = measures.warm_up(group.timeline)
        changes: list[tuple[int, str]] = []
        for event in measures.transitions(group.timeline):
            if warm is not None and event.name == "learning_rate" and event.step <= warm[1]:
                within = event.step % group.timeline.steps_per_epoch
                marks.append((event.epoch if within > 1 else event.epoch - 1, "warm-up ends"))
            else:
                changes.append((event.epoch, MOVING[event.name].label))
        for epoch, names in _by_epoch(changes).items():
            marks.append((epoch - 1, f"before a change of {formats.listed(list(dict.fromkeys(names)))}"))
        if changes:
            marks.append((max(changes)[0], "first epoch after the last change"))
    marks += [(epoch, f"{text}, chosen on {formats.JUDGES[group.judge]}") for epoch, text in _best_epochs(group)]
    return _by_epoch((epoch, text) for epoch, text in [*marks, (length, "last")] if 1 <= epoch <= length)


def portraits(groups: Sequence[Group]) -> list[Block]:
    """What the figures say about each recipe by itself."""
    blocks: list[Block] = []
    for group in groups:
        blocks += [Text(f"**{group.name}** ({formats.count(len(group.counted), 'run')})"), Bullets(_portrait(group))]
    return blocks


def _portrait(group: Group) -> list[str]:
    last, best = (formats.values(measures.values(group, which)) for which in measures.WHICH)
    train = formats.values(measures.values(group, "last", "train_accuracy"))
    falls = [measures.falls(run) for run in group.counted]
    steps = sum(len(run.rows) - 1 for run in group.counted)
    _, fall, epoch = max(falls, key=lambda entry: entry[1])
    clean = measures.measured(group, "last", ("clean_gap",))
    texts = [
        f"Test accuracy after the last epoch ({formats.epochs_of(group, 'last')}): {last} %; at the best epoch "
        f"({formats.epochs_of(group, 'best')}, chosen on {formats.JUDGES[group.judge]}): {best} %.",
        f"Training accuracy in the last epoch: {train} %, on {formats.conditions(group)}. Gap under augmentation: "
        f"{formats.gaps(measures.augmented_gaps(group, 'last'))} points; clean gap: {formats.gaps(clean)}"
        f"{'' if clean is None else ' points'}.",
        f"Test accuracy was below that of the epoch before after {sum(entry[0] for entry in falls)} of {steps} epochs"
        + (f", by {formats.percent(fall)} points at most (epoch {epoch})." if epoch else "."),
    ]
    cycle = measures.rate_cycle(group)
    if cycle is not None and group.timeline is not None:
        rate, peak = cycle.evaluations[-1].before, cycle.peak_after
        of_peak = f", {formats.share(rate / peak)} % of the highest after the warm-up ({formats.rate(peak)})" if peak else ""
        texts.append(
            f"The rate before the last evaluation was {formats.rate(rate)}{of_peak}"
            + ("; it runs up and down within each epoch." if cycle.saw_tooth else ".")
        )
        moving = measures.transitions(group.timeline)
        beside = [event for event in moving if event.name != "learning_rate"]
        texts.append(f"{formats.count(len(moving), 'transition')}, {len(beside)} of them beside the learning rate.")
    return texts


def artifacts(group: Group) -> Block:
    """The checkpoints with their accuracies."""
    rows = []
    for run in group.runs:
        for kept in run.kept:
            accuracy = run.rows[kept.epoch - 1].test_accuracy if kept.epoch and kept.epoch <= len(run.rows) else None
            remarks = [name for name, row in (("best", run.best), ("last", run.last)) if row.epoch == kept.epoch]
            where = [kept.name] if run.log else [run.name, f"checkpoints/{kept.name}"]
            rows.append([*where, str(kept.epoch or "within one"), formats.percent(accuracy), ", ".join(remarks) or NONE])
    if not rows:
        return Text(f"{group.name}: no checkpoints.")
    facts = published_runs.PUBLISHED[group.log] if group.log else None
    note = f"At {facts.place}, made by the notebook {facts.notebook}. Accuracies are the log's." if facts else ""
    heads = [*(["file"] if group.log else ["run", "checkpoint"]), "epoch", "test accuracy (%)", "remark"]
    return Table(f"Checkpoints of {group.name}", heads, rows, note=note)


def selection(groups: Sequence[Group]) -> Table:
    """What choosing an epoch adds to each run's test accuracy."""
    rows = []
    for group in groups:
        for run in group.counted:
            choice = measures.selection(run)
            tail = Summary(choice.tail_epochs, choice.tail_mean, choice.tail_sd, None, None)
            rows.append([
                run.name, f"{formats.percent(choice.last)} ({choice.last_epoch})",
                f"{formats.percent(choice.best)} ({choice.best_epoch})", formats.JUDGES[choice.judge],
                formats.points(choice.best - choice.last), f"{formats.percent(choice.top)} ({choice.top_epoch})",
                formats.points(choice.top - choice.last), f"{formats.spread(tail)} ({choice.tail_epochs})",
            ])  # fmt: skip
    heads = ("run", "last, % (epoch)", "best, % (epoch)", "best chosen on", "best - last (points)",
             "highest on test, % (epoch)", "highest - last (points)", "last epochs, mean ± sd, % (number)")  # fmt: skip
    note = (
        "The highest of many test accuracies is never below the last. How much of its lead is luck in choosing, and how much a "
        "better network, a run does not tell. A choice on a hold-out is free of that luck, as far as the test images go. The "
        "spread of the last epochs holds their rise as well."
    )
    return Table("Selection: best, highest and last test accuracy of each run", heads, rows, note=note)
