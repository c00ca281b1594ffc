"""Durations with units, and values that are functions of the training clock.

The clock counts optimiser updates from 0. A `Position` is a point on it ("epoch 41": the first update of epoch 41; epochs
count from 1), a `Duration` a stretch of it ("5 epochs", "25 steps"). A hyperparameter is a mapping from positions to values,
read like a transition table:

    dropout = {epoch(1): 0.3, epoch(51): 0.2, epoch(81): 0.1}                        # piecewise constant
    learning_rate = {epoch(1): Linear(0.01, 0.1, epochs(5)),                         # a join of pieces
                     epoch(6): WarmRestarts(0.1, 1e-4, epochs(25), since=epoch(1))}

Scaling a recipe stretches what is given in epochs; what is given in steps counts updates and stays as it is.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import ConfigDict, Discriminator, Field, PlainSerializer, PlainValidator, Tag, WithJsonSchema
from pydantic.dataclasses import dataclass as checked_dataclass

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _shortest(number: float) -> str:
    """The shortest text that reads back as exactly this number: 5, not 5.0."""
    return str(number).removesuffix(".0")


@dataclass(frozen=True, order=True)
class Duration:
    """A stretch of training: `amount` >= 0 in `unit` "epochs" or "steps" (updates)."""

    amount: float
    unit: str

    def __str__(self) -> str:
        return f"{_shortest(self.amount)} {self.unit[:-1] if self.amount == 1 else self.unit}"

    __repr__ = __str__


@dataclass(frozen=True)
class Position:
    """A point on the clock: `count` in `unit` "epoch" (from 1) or "step" (from 0), and `plus` steps more."""

    count: float
    unit: str
    plus: int = 0

    def __str__(self) -> str:
        more = f" + {Duration(self.plus, 'steps')}" if self.plus else ""
        return f"{self.unit} {_shortest(self.count)}{more}"

    __repr__ = __str__


def epochs(amount: float) -> Duration:
    """`amount` epochs; scaled with the recipe."""
    return Duration(amount, "epochs")


def steps(amount: int) -> Duration:
    """`amount` optimiser updates; not scaled."""
    return Duration(amount, "steps")


def epoch(count: float, plus: int = 0) -> Position:
    """The first step of epoch `count`, counted from 1; scaled with the recipe. `plus` steps after it, which are not scaled."""
    return Position(count, "epoch", plus)


def step(count: int) -> Position:
    """The update with index `count`, counted from 0; not scaled."""
    return Position(count, "step")


_NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parse_duration(value: Any) -> Duration:
    if isinstance(value, str) and (match := re.fullmatch(_NUMBER + r" (epoch|step)s?", value.strip())):
        value = Duration(float(match[1]), match[2] + "s")
    if not isinstance(value, Duration) or not _is_number(value.amount) or value.unit not in ("epochs", "steps"):
        raise ValueError("a duration reads like '5 epochs' or '25 steps'")
    if not 0 < value.amount < 1e9:
        raise ValueError("a duration is positive and below 1e9")
    if value.unit == "steps" and value.amount != int(value.amount):
        raise ValueError("a number of steps is whole")
    return value


def _parse_position(value: Any) -> Position:
    pattern = r"(epoch|step) " + _NUMBER + r"(?: \+ ([0-9]{1,9}) steps?)?"
    if isinstance(value, str) and (match := re.fullmatch(pattern, value.strip())):
        value = Position(float(match[2]), match[1], int(match[3] or 0))
    if not isinstance(value, Position) or not _is_number(value.count) or value.unit not in ("epoch", "step"):
        raise ValueError("a position reads like 'epoch 41' (from 1), 'epoch 41 + 1 step' or 'step 980' (from 0)")
    lowest = 1 if value.unit == "epoch" else 0
    if not lowest <= value.count < 1e9 or (value.unit == "step" and value.count != int(value.count)):
        raise ValueError("epochs count from 1 and steps, which are whole, from 0; both stay below 1e9")
    if not isinstance(value.plus, int) or isinstance(value.plus, bool) or not 0 <= value.plus < 1e9:
        raise ValueError("the steps after a position are whole, from 0 and below 1e9")
    return value


# Both are written to JSON, and read from JSON and the command line, as the text that people read.
DurationField = Annotated[Duration, PlainValidator(_parse_duration), PlainSerializer(str), WithJsonSchema({"type": "string"})]
PositionField = Annotated[Position, PlainValidator(_parse_position), PlainSerializer(str), WithJsonSchema({"type": "string"})]


@dataclass(frozen=True)
class Clock:
    """Translates epochs into steps. `scale` is the factor by which the recipe's epochs are stretched."""

    steps_per_epoch: int
    scale: float = 1.0

    def length(self, duration: Duration) -> int:
        """Steps in `duration`, at least 1."""
        if duration.unit == "steps":
            return int(duration.amount)
        return max(1, round(duration.amount * self.scale * self.steps_per_epoch))

    def stretch(self, duration: Duration) -> Duration:
        """`duration` as long as it is in the run."""
        return duration if duration.unit == "steps" else Duration(round(duration.amount * self.scale, 3), duration.unit)

    def index(self, position: Position) -> int:
        """Index (from 0) of the step that `position` names; at most 2**31 - 1, which no run reaches."""
        steps = position.count if position.unit == "step" else (position.count - 1) * self.scale * self.steps_per_epoch
        return min(2**31 - 1, round(steps) + position.plus)


def _half_cosine(progress: jax.Array) -> jax.Array:
    """(1 + cos(pi * progress)) / 2, from 1 at 0 to 0 at 1, written so that nothing cancels near the end."""
    return jnp.square(jnp.cos(jnp.pi / 2 * progress))


@checked_dataclass(frozen=True, config=_STRICT)
class Linear:
    """A straight line from `start` to `end` over `over`, constant afterwards; a warm-up when it rises."""

    start: float
    end: float
    over: DurationField
    since: PositionField | None = None
    kind: Literal["linear"] = "linear"

    def at(self, elapsed: jax.Array, clock: Clock) -> jax.Array:
        """Value `elapsed` steps (int32, any shape) after the start; float32."""
        progress = jnp.clip(elapsed / float(clock.length(self.over)), 0.0, 1.0)
        return self.start + (self.end - self.start) * progress

    def describe(self, clock: Clock) -> str:
        """What it does, in words, durations as they are on `clock`."""
        return f"linear {self.start:g} to {self.end:g} over {clock.stretch(self.over)}"


@checked_dataclass(frozen=True, config=_STRICT)
class Cosine:
    """Half a cosine from `start` to `end` over `over` (PyTorch: CosineAnnealingLR).

    Afterwards it is constant, or with `beyond="continue"` the wave goes on: up to `start` and down again, as PyTorch's does
    when it is stepped more often than it was made for.
    """

    start: float
    end: float
    over: DurationField
    since: PositionField | None = None
    beyond: Literal["hold", "continue"] = "hold"
    kind: Literal["cosine"] = "cosine"

    def at(self, elapsed: jax.Array, clock: Clock) -> jax.Array:
        """Value `elapsed` steps (int32, any shape) after the start; float32."""
        length = clock.length(self.over)
        if self.beyond == "continue":
            elapsed = jnp.maximum(elapsed, 0) % min(2 * length, 2**31 - 1)
            progress = elapsed / float(length)
        else:
            progress = jnp.clip(elapsed / float(length), 0.0, 1.0)
        return self.end + (self.start - self.end) * _half_cosine(progress)

    def describe(self, clock: Clock) -> str:
        """What it does, in words, durations as they are on `clock`."""
        again = ", up and down again" if self.beyond == "continue" else ""
        return f"cosine {self.start:g} to {self.end:g} over {clock.stretch(self.over)}{again}"


@checked_dataclass(frozen=True, config=_STRICT)
class WarmRestarts:
    """Half a cosine from `peak` to `floor` over `period`, again and again, each period `multiplier` times the last.

    Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017 (PyTorch: CosineAnnealingWarmRestarts).
    """

    peak: float
    floor: float
    period: DurationField
    multiplier: Annotated[int, Field(ge=1, le=1000)] = 1
    since: PositionField | None = None
    kind: Literal["warm_restarts"] = "warm_restarts"

    def at(self, elapsed: jax.Array, clock: Clock) -> jax.Array:
        """Value `elapsed` steps (int32, any shape) after the start; float32."""
        first = clock.length(self.period)
        elapsed = jnp.maximum(elapsed, 0)
        if self.multiplier == 1:
            begin, length = elapsed - elapsed % min(first, 2**31 - 1), float(first)
        else:
            # Cycle n begins after first * (m^n - 1) / (m - 1) steps. A table of the beginnings keeps the arithmetic in
            # integers: a logarithm in float32 puts steps next to a restart into the wrong cycle.
            beginnings, lengths = [0], [first]
            while beginnings[-1] + lengths[-1] < 2**31:
                beginnings.append(beginnings[-1] + lengths[-1])
                lengths.append(lengths[-1] * self.multiplier)
            table = np.array(beginnings, np.int32)
            cycle = jnp.searchsorted(table, elapsed, side="right") - 1
            begin, length = jnp.asarray(table)[cycle], jnp.asarray(np.array(lengths, np.float32))[cycle]
        return self.floor + (self.peak - self.floor) * _half_cosine((elapsed - begin) / length)

    def describe(self, clock: Clock) -> str:
        """What it does, in words, durations as they are on `clock`."""
        growth = f", each {self.multiplier} times the last" if self.multiplier > 1 else ""
        return f"warm restarts {self.peak:g} to {self.floor:g} every {clock.stretch(self.period)}{growth}"


def _kind(value: Any) -> str | None:
    if _is_number(value):
        return "number"
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else None


Schedule = Annotated[
    Annotated[float, Tag("number")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[WarmRestarts, Tag("warm_restarts")],
    Discriminator(
        _kind,
        custom_error_type="schedule",
        custom_error_message="Input should be a number, or an object whose 'kind' is linear, cosine or warm_restarts",
    ),
]
KINDS = ("number", "linear", "cosine", "warm_restarts")


def extremes(schedule: Any) -> tuple[float, float]:
    """Lowest and highest value that a schedule (or plain number) takes."""
    match schedule:
        case Linear() | Cosine():
            ends = (schedule.start, schedule.end)
        case WarmRestarts():
            ends = (schedule.peak, schedule.floor)
        case _:
            ends = (schedule, schedule)
    return min(ends), max(ends)


def beginnings(phases: Mapping[Position, Any], clock: Clock) -> list[tuple[int, Any]]:
    """The phases as (index of the first step, value), in the order of the clock.

    Phases that scaling has brought to the same step are reduced to the last of them, which is the one that acts.
    """
    latest: dict[int, Any] = {}
    for position, value in phases.items():
        latest[clock.index(position)] = value
    return sorted(latest.items())


def join(phases: Mapping[Position, Any], clock: Clock) -> Callable[[jax.Array], jax.Array]:
    """One function `step -> value` from a table of phases: each rules from its position until the next begins.

    A phase's own clock starts where it begins, or at its `since`. The result takes int32 steps of any shape, gives float32
    of that shape, and is jittable. Before the first phase its value at its beginning holds.
    """
    pieces = beginnings(phases, clock)
    starts = np.array([start for start, _ in pieces], np.int32)

    def value_at(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.int32)
        values = []
        for start, piece in pieces:
            if isinstance(piece, int | float):
                values.append(jnp.full(step.shape, piece, jnp.float32))
                continue
            origin = start if piece.since is None else clock.index(piece.since)
            values.append(piece.at(jnp.maximum(step, start) - origin, clock).astype(jnp.float32))
        which = jnp.maximum(jnp.searchsorted(starts, step, side="right") - 1, 0)
        return jnp.select([which == i for i in range(len(pieces))], values)

    return value_at
