"""How far two configurations are the same run: which keys differ, and from which update on each changes a number."""

from typing import Any

import numpy as np

from wrn_jax.config.moving import MOVING
from wrn_jax.config.schema import FREE_ON_RESUME, Config, flatten
from wrn_jax.config.timeline import Timeline

CHANGES_NO_NUMBER = (*FREE_ON_RESUME, "early_stopping_patience", "recipe.checkpoint_epochs")
"""Keys that decide where a run happens, how long it goes on and what is kept, but none of its numbers."""

_LENGTH = ("recipe.epochs", "recipe.scale")


def changed_keys(old: Config, new: Config) -> dict[str, str]:
    """Those in which the configurations differ, by dotted key as "was X, is Y"; without those that only say where it runs."""
    was, now = flatten(old.to_dict()), flatten(new.to_dict())
    keys = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key) and not _is_of(key, FREE_ON_RESUME))
    return {key: f"was {was.get(key)}, is {now.get(key)}" for key in keys}


def first_differences(one: Config, other: Config, timelines: tuple[Timeline, Timeline] | None = None) -> dict[str, int]:
    """From which update (from 0) on each key in which two runs differ changes a number, by dotted key.

    A key that changes none is left out: those of `CHANGES_NO_NUMBER`, and phases that begin after the end of the shorter run.
    Where some keys act from the first update on, they alone are named. Who has the timelines of both saves computing them.
    Raises UserError for a recipe that fits no data.
    """
    keys = [key for key in changed_keys(one, other) if not _is_of(key, CHANGES_NO_NUMBER)]
    timed = (*_LENGTH, "augmentation_levels", *(value.key for value in MOVING.values()))
    if from_start := [key for key in keys if not _is_of(key, timed)]:
        return dict.fromkeys(from_start, 0)
    if not keys:
        return {}
    timelines = timelines or (Timeline.of(one), Timeline.of(other))
    found: dict[str, int] = {}

    def note(names: list[str], step: int) -> None:
        found.update({key: min(step, found.get(key, step)) for key in names})

    length = [key for key in keys if key in _LENGTH]
    for name, step in _first_unlike_values(one, other, timelines).items():
        own = (MOVING[name].key, "augmentation_levels") if MOVING[name].is_level else (MOVING[name].key,)
        note([key for key in keys if _is_of(key, own)] or length, step)
    if timelines[0].steps != timelines[1].steps:
        note(length, min(timeline.steps for timeline in timelines))
    return found


def agreed_steps(one: Config, other: Config, timelines: tuple[Timeline, Timeline] | None = None) -> int:
    """How many updates two runs have in common from their start: after these, both are in the same state, to the bit.

    Runs of different seeds, networks or data have none. Arguments and errors as in `first_differences`.
    """
    timelines = timelines or (Timeline.of(one), Timeline.of(other))
    return min(first_differences(one, other, timelines).values(), default=timelines[0].steps)


def _first_unlike_values(one: Config, other: Config, timelines: tuple[Timeline, Timeline]) -> dict[str, int]:
    """The first update at which each moving value differs, by name. Of a very long run it may be given too early."""
    end = min(timeline.steps for timeline in timelines)
    steps = np.unique(np.concatenate([timeline.sampled for timeline in timelines]))
    steps = steps[steps < end]
    values = [timeline.values_at(steps) for timeline in timelines]
    first: dict[str, int] = {}
    for name, value in MOVING.items():
        a, b = values[0][name], values[1][name]
        if value.is_level:
            levels = [[(level, config.augmentation_levels[level]) for level in timeline.level_names]
                      for config, timeline in zip((one, other), timelines, strict=True)]  # fmt: skip
            distinct = levels[0] + [level for level in levels[1] if level not in levels[0]]
            a, b = (_level_parts(own, of, distinct) for own, of in zip(levels, (a, b), strict=True))
        unlike = np.flatnonzero((a != b) if a.ndim == 1 else (a != b).any(axis=0))
        if len(unlike):
            place = unlike[0]
            first[name] = int(steps[place - 1]) + 1 if place else 0
    return first


def _level_parts(levels: list[Any], places: np.ndarray, distinct: list[Any]) -> np.ndarray:
    """The level below, the one above, each by its place in `distinct`, and the share of the latter; float64 [3, n]."""
    known = np.array([distinct.index(level) for level in levels])
    below = np.floor(places).astype(int)
    return np.stack([known[below], known[np.ceil(places).astype(int)], places - below])


def _is_of(key: str, owners: tuple[str, ...]) -> bool:
    """Whether a dotted key is one of these, or lies below one."""
    return any(key == owner or key.startswith(f"{owner}.") for owner in owners)
