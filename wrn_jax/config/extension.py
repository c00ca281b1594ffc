"""A recipe that goes on after its end."""

import dataclasses
from typing import Any

from wrn_jax.config.moving import MOVING
from wrn_jax.config.schedules import Clock, Duration, Position, step, steps
from wrn_jax.config.schema import Config
from wrn_jax.config.timeline import Timeline
from wrn_jax.runtime.errors import UserError


def extended(config: Config, more: int) -> Config:
    """The same recipe with `more` epochs (at least 1) after its last one; every update up to there is the same, to the bit.

    Nothing is stretched: phases and durations stay where they are on the clock, so the copy has them in updates. What follows
    the old end is what the last phase of a value gives there: a constant, a line, a polynomial and half a cosine hold their
    end, an exponential decay and warm restarts go on, and a phase that lay beyond the old end begins.

    Raises UserError for a schedule that counts from a point before the start, which cannot be written so.
    """
    timeline = Timeline.of(config)
    changes: dict[str, Any] = {
        "recipe.epochs": timeline.epochs + more,
        "recipe.scale": 1.0,
        "recipe.checkpoint_epochs": list(timeline.checkpoint_epochs),
    }
    for name, value in MOVING.items():
        phases = config.phases(name)
        placed = [(max(0, timeline.clock.index(position)), position, phase) for position, phase in phases.items()]
        changes[value.key] = {  # of phases at one step the last acts
            step(start): _in_steps(phase, timeline.clock, f"{value.key}.{position}")
            for start, position, phase in sorted(placed, key=lambda item: item[0])
        }
    return config.override(changes, "--extend")


def _in_steps(phase: Any, clock: Clock, key: str) -> Any:
    """The schedule with its durations and its `since` in updates; another value as it is."""
    if not dataclasses.is_dataclass(phase) or isinstance(phase, type):
        return phase
    fields: dict[str, Any] = {}
    for name, field in vars(phase).items():
        if isinstance(field, Duration):
            fields[name] = steps(clock.length(field))
        elif isinstance(field, Position):
            if clock.index(field) < 0:
                raise UserError(
                    f"{key}.since = {field}: lies before the start of this run, which --extend cannot write in updates"
                )
            fields[name] = step(clock.index(field))
        else:
            fields[name] = field
    return type(phase)(**fields)
