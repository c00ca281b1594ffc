"""Two recipes side by side: where they differ, what is likely wrong with each, and in brief what they share."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from wrn_jax.config import Config, checks
from wrn_jax.config.moving import MOVING, NUMERIC
from wrn_jax.config.timeline import Timeline, epoch_text, level_course, shortest, shown_in
from wrn_jax.planning import cost
from wrn_jax.planning.description import Plan, bars, describe_length, labels
from wrn_jax.planning.tables import table
from wrn_jax.runtime import console


def describe_two(a: Plan, b: Plan) -> list[str]:
    """Two recipes side by side: where they differ, what is likely wrong with each, and in brief what they share."""
    names = labels([a, b])
    different, shared = compare_keys(a, b)
    lines = [
        *(f"{letter}: {plan.path}: {describe_length(plan.config, plan.timeline)[0]}" for letter, plan in (("A", a), ("B", b))),
        "",
        *(table([("different", *names), *different]) if different else ["different: no key"]),
        "",
    ]
    for name in shown_in((a.timeline, b.timeline)):
        if not is_shared(a.timeline, b.timeline, name):
            lines += [*phases_of_two(a.timeline, b.timeline, name, names), ""]
    ranges = differing_values(a.timeline, b.timeline)
    unit = "epochs" if a.timeline.epochs == b.timeline.epochs else "% of run"
    if ranges:
        lines += [*table([("different values", unit, *names), *ranges]), ""]
    elif unit != "epochs":
        lines += ["different values: none, where both runs have come equally far", ""]
    for name, plan in zip(names, (a, b), strict=True):
        head, *rest = checks.report(plan.findings, plan.config.silence)
        lines += [f"{name}: {head}", *rest, ""]
    return lines + console.wrapped("in both: ", "; ".join(shared))


def facts(plan: Plan) -> dict[str, str]:
    """What follows from the keys, in words."""
    timeline = plan.timeline
    return {
        "network": plan.config.model.title,
        "training images": f"{plan.setup.num_train:,}",
        "updates": f"{timeline.epochs} x {timeline.steps_per_epoch} = {timeline.steps:,}",
        "parameters": f"{plan.setup.network.num_parameters:,}",
        "operations of the run": f"{cost.run_operations(plan.setup):.3g}",
    }


def flat_keys(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The keys of a configuration but for the moving values, each with its value as text."""
    for name, value in tree.items():
        if name in MOVING and prefix + name == MOVING[name].key:
            continue
        if isinstance(value, dict):
            yield from flat_keys(value, f"{prefix}{name}.")
        else:
            text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
            yield prefix + name, text if isinstance(value, str | list) else text.lower()


def compare_keys(a: Plan, b: Plan) -> tuple[list[tuple[str, str, str]], list[str]]:
    """(name, A's value, B's value) of each fact and key that differs; and in brief what is the same, moving values included."""
    left, right, usual = (dict(flat_keys(config.to_dict())) for config in (a.config, b.config, Config()))
    left, right = facts(a) | left, facts(b) | right
    names = [name for name in dict.fromkeys([*left, *right]) if not name.startswith("silence.")]
    different = [(name, left.get(name, "-"), right.get(name, "-")) for name in names if left.get(name) != right.get(name)]
    same = [name for name in names if left.get(name) == right.get(name)]
    usual |= {name: "0.0" for name in same if name.startswith("augmentation_levels.") and name not in usual}
    at_default = [name for name in same if left[name] == usual.get(name)]
    shared = [f"{name} {left[name]}" for name in same if name not in at_default]
    for name in shown_in((a.timeline, b.timeline)):
        if is_shared(a.timeline, b.timeline, name):
            texts = phase_texts(a.timeline, name)
            phases = [text if when == 1 else f"{text} (epoch {epoch_text(when)})" for when, text in texts]
            shared.append(f"{name} {', '.join(phases)}")
    return different, [*shared, f"{len(at_default)} keys at their defaults"]


def phase_texts(timeline: Timeline, name: str) -> list[tuple[float, str]]:
    """(epoch, from 1; what it does) of each phase of a moving value."""
    return [(event.step / timeline.steps_per_epoch + 1, event.after) for event in timeline.phases([name])]


def is_shared(a: Timeline, b: Timeline, name: str) -> bool:
    """Whether a moving value is the same in two recipes: in words, and, where the runs are equally long, in every value."""
    values = a.values[name], b.values[name]
    return phase_texts(a, name) == phase_texts(b, name) and (a.steps != b.steps or np.array_equal(*values))


def phases_of_two(a: Timeline, b: Timeline, name: str, names: Sequence[str]) -> list[str]:
    """The phases of a moving value in two recipes, those that begin together in one line, and the values as bars."""
    same_length = a.epochs == b.epochs
    rows: dict[float, list[str]] = {}
    for column, timeline in enumerate((a, b)):
        for when, text in phase_texts(timeline, name):
            moment = round(when if same_length else (when - 1) / timeline.epochs, 6)
            rows.setdefault(moment, ["", "", "", ""])[2 * column : 2 * column + 2] = f"{epoch_text(when):>5}", text
    lines = table([("epoch", names[0], "epoch", names[1]), *(tuple(rows[moment]) for moment in sorted(rows))])
    if name in NUMERIC:
        top = max(float(timeline.values[name].max()) for timeline in (a, b))
        lines += [f"{letter}  {bars(timeline.values[name], top=top)}" for letter, timeline in (("A", a), ("B", b))]
    return [name, *lines]


def differing_values(a: Timeline, b: Timeline) -> list[tuple[str, str, str, str]]:
    """(moving value, range, A's values, B's values) wherever they differ.

    Runs of the same number of epochs are compared epoch by epoch, others at the same percentage of their way; where an epoch
    has not as many steps in both, or for percentages, to 2 % of the highest value. A range ends where a phase of either begins.
    """
    same_length = a.epochs == b.epochs
    count = a.epochs if same_length else min(100, a.steps, b.steps)
    rows = []
    for name, value in MOVING.items():
        parts_a, parts_b = (_parts(timeline, timeline.values[name], count) for timeline in (a, b))
        compared = parts_a, parts_b
        if value.is_level:
            levels = list(dict.fromkeys(a.level_names + b.level_names))
            compared = tuple(_parts(timeline, level_course(timeline, levels), count) for timeline in (a, b))
        joins = {begin * count // timeline.steps for timeline in (a, b) for begin, _ in timeline.beginnings(name)}
        highest = max(float(timeline.values[name].max()) for timeline in (a, b))
        tolerance = 0.02 * (1.0 if value.is_level else highest)
        differ = [_differ(part_a, part_b, tolerance) for part_a, part_b in zip(*compared, strict=True)]
        title, first = name, 0
        for index in range(1, count + 1):
            if index < count and index not in joins and differ[index] == differ[first]:
                continue
            if differ[first]:
                begin, end = (first + 1, index) if same_length else (round(100 * first / count), round(100 * index / count))
                where = str(begin) if begin == end else f"{begin}-{end}"
                ranges = np.concatenate(parts_a[first:index]), np.concatenate(parts_b[first:index])
                if value.is_level:
                    rows.append((title, where, _level_summary(a, ranges[0]), _level_summary(b, ranges[1])))
                else:
                    rows.append((title, where, _summary(ranges[0]), _summary(ranges[1])))
                title = ""  # named once
            first = index
    return rows


def _parts(timeline: Timeline, values: np.ndarray, count: int) -> list[np.ndarray]:
    """The values of a run in `count` equal parts."""
    return np.split(values, timeline.index([round(index * timeline.steps / count) for index in range(1, count)]))


def _differ(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Whether two parts hold different values; parts of unlike lengths are compared in the middle, to the tolerance."""
    if len(a) == len(b):
        return not np.array_equal(a, b)
    middle_a, middle_b = a[len(a) // 2], b[len(b) // 2]
    return bool(abs(middle_a - middle_b) > tolerance)


def _level_summary(timeline: Timeline, places: np.ndarray) -> str:
    names = timeline.levels_at(places)
    if (places == np.floor(places)).all():
        return ", ".join(names)
    shares = [round(100 * float(place - np.floor(places.min()))) for place in (places[0], places[-1])]
    return " to ".join(names) + (f", {shares[0]} to {shares[1]} %" if len(names) == 2 else "")


def _summary(values: np.ndarray) -> str:
    if values.min() == values.max():
        return f"{shortest(values[0]):g}"
    return f"{values.min():.3g} to {values.max():.3g}, mean {values.mean(dtype=np.float64):.3g}"
