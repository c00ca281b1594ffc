"""Durations with units, and values that are functions of the training clock.

The clock counts optimiser updates from 0. A `Position` is a point on it ("epoch 41": the first update of epoch 41; epochs
count from 1; "last 15 epochs": where they begin; "75 %" of the run), a `Duration` a stretch of it ("5 epochs", "25 steps",
"20 %"). A hyperparameter is a mapping from positions to values, read like a transition table:

    dropout = {epoch(1): 0.3, epoch(51): 0.2, epoch(81): 0.1}                        # piecewise constant
    learning_rate = {epoch(1): Linear(0.01, 0.1, epochs(5)),                         # a join of pieces
                     epoch(6): WarmRestarts(0.1, 1e-4, epochs(25), since=epoch(1))}
    augmentation = {epoch(1): Ramp("minimal", "full", epochs(50))}                   # levels by name

Scaling a recipe stretches what is given in epochs; what is given in steps counts updates and stays as it is. Positions from
the end and shares of the run follow the number of epochs as well, so that a shortened recipe keeps its shape.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from pydantic import ConfigDict, Discriminator, Field, PlainSerializer, PlainValidator, Tag, WithJsonSchema
from pydantic.dataclasses import dataclass as checked_dataclass

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _shortest(number: float) -> str:
    """The shortest text that reads back as exactly this number: 5, not 5.0."""
    return str(number).removesuffix(".0")


@dataclass(frozen=True, order=True)
class Duration:
    """A stretch of training: `amount` > 0 in `unit` "epochs", "steps" (updates) or "%" (of the run)."""

    amount: float
    unit: str

    def __str__(self) -> str:
        return f"{_shortest(self.amount)} {self.unit.removesuffix('s') if self.amount == 1 else self.unit}"

    __repr__ = __str__


@dataclass(frozen=True)
class Position:
    """A point on the clock, and `plus` steps more: `count` in `unit`.

    The unit is "epoch" (from 1), "step" (from 0), "last" (epochs before the end of the run) or "%" (of the run).
    """

    count: float
    unit: str
    plus: int = 0

    def __str__(self) -> str:
        amount = _shortest(self.count)
        texts = {"last": f"last {Duration(self.count, 'epochs')}", "%": f"{amount} %"}
        more = f" + {Duration(self.plus, 'steps')}" if self.plus else ""
        return texts.get(self.unit, f"{self.unit} {amount}") + more

    __repr__ = __str__

    @property
    def rank(self) -> tuple[float, int]:
        """What rises with time among the positions of one unit."""
        return (-self.count if self.unit == "last" else self.count), self.plus


def epochs(amount: float) -> Duration:
    """`amount` epochs; scaled with the recipe."""
    return Duration(amount, "epochs")


def steps(amount: int) -> Duration:
    """`amount` optimiser updates; not scaled."""
    return Duration(amount, "steps")


def share(text: str) -> Duration:
    """A part of the run, such as share("20 %")."""
    return _parse_duration(text)


def epoch(count: float, plus: int = 0) -> Position:
    """The first step of epoch `count`, counted from 1; scaled with the recipe. `plus` steps after it, which are not scaled."""
    return Position(count, "epoch", plus)


def step(count: int) -> Position:
    """The update with index `count`, counted from 0; not scaled."""
    return Position(count, "step")


def last(count: float) -> Position:
    """The first step of the last `count` epochs; they are scaled with the recipe."""
    return Position(count, "last")


def at(text: str) -> Position:
    """The position that a text names, such as at("75 %"): where that share of the run is over."""
    return _parse_position(text)


_NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _parse_duration(value: Any) -> Duration:
    if isinstance(value, str) and (match := re.fullmatch(_NUMBER + r" (?:(epoch|step)s?|%)", value.strip())):
        value = Duration(float(match[1]), f"{match[2]}s" if match[2] else "%")
    if not isinstance(value, Duration) or not _is_number(value.amount) or value.unit not in ("epochs", "steps", "%"):
        raise ValueError("a duration reads like '5 epochs', '25 steps' or '20 %'")
    if not 0 < value.amount < 1e9:
        raise ValueError("a duration is positive and below 1e9")
    if value.unit == "steps" and value.amount != int(value.amount):
        raise ValueError("a number of steps is whole")
    if value.unit == "%" and value.amount > 100:
        raise ValueError("a share of the run is at most 100 %")
    return value


_POSITION = re.compile(
    rf"(?:(?P<unit>epoch|step) (?P<count>{_NUMBER})|last (?P<last>{_NUMBER}) epochs?|(?P<share>{_NUMBER}) %)"
    r"(?: \+ (?P<plus>[0-9]{1,9}) steps?)?"
)


def _parse_position(value: Any) -> Position:
    if isinstance(value, str) and (match := _POSITION.fullmatch(value.strip())):
        unit = match["unit"] or ("last" if match["last"] else "%")
        value = Position(float(match["count"] or match["last"] or match["share"]), unit, int(match["plus"] or 0))
    if not isinstance(value, Position) or not _is_number(value.count) or value.unit not in ("epoch", "step", "last", "%"):
        raise ValueError(
            "a position reads like 'epoch 41' (from 1), 'epoch 41 + 1 step', 'step 980' (from 0), 'last 15 epochs' or '75 %'"
        )
    lowest = 1 if value.unit == "epoch" else 0
    if not lowest <= value.count < 1e9 or (value.unit == "step" and value.count != int(value.count)):
        raise ValueError("epochs count from 1 and steps, which are whole, from 0; both stay below 1e9")
    if value.unit == "%" and value.count > 100:
        raise ValueError("a share of the run is at most 100 %")
    plus: Any = value.plus  # a recipe may have made the Position of anything
    if not isinstance(plus, int) or isinstance(plus, bool) or not 0 <= plus < 1e9:
        raise ValueError("the steps after a position are whole, from 0 and below 1e9")
    return value


# Both are written to JSON, and read from JSON and the command line, as the text that people read.
DurationField = Annotated[Duration, PlainValidator(_parse_duration), PlainSerializer(str), WithJsonSchema({"type": "string"})]
PositionField = Annotated[Position, PlainValidator(_parse_position), PlainSerializer(str), WithJsonSchema({"type": "string"})]


@dataclass(frozen=True)
class Clock:
    """Translates epochs and shares of a run into steps.

    Attributes:
      steps_per_epoch: updates in an epoch.
      scale: factor by which the recipe's epochs are stretched.
      epochs: length of the recipe as written; what counts from the end, or in shares of the run, starts from it.
    """

    steps_per_epoch: int
    scale: float = 1.0
    epochs: int = 0

    def length(self, duration: Duration) -> int:
        """Steps in `duration`, at least 1."""
        if duration.unit == "steps":
            return int(duration.amount)
        return max(1, round(self._written(duration) * self.scale * self.steps_per_epoch))

    def stretch(self, duration: Duration) -> Duration:
        """`duration` as long as it is in the run, in epochs unless it is given in steps."""
        return duration if duration.unit == "steps" else Duration(round(self._written(duration) * self.scale, 3), "epochs")

    def _written(self, duration: Duration) -> float:
        """Epochs of the recipe as written."""
        return duration.amount / 100 * self.epochs if duration.unit == "%" else duration.amount

    def index(self, position: Position) -> int:
        """Index (from 0) of the step that `position` names; within -2**30 and 2**31 - 1, which no run reaches.

        Below 0 where a position from the end lies before the beginning.
        """
        before = {
            "epoch": position.count - 1,
            "last": self.epochs - position.count,
            "%": position.count / 100 * self.epochs,
        }
        epochs = before.get(position.unit)
        steps = position.count if epochs is None else epochs * self.scale * self.steps_per_epoch
        return max(-(2**30), min(2**31 - 1, round(steps) + position.plus))


def _progress(elapsed: jax.Array, length: int) -> jax.Array:
    """The share of `length` steps that is over, 0 before and 1 after them."""
    return jnp.clip(elapsed / float(length), 0.0, 1.0)


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
        progress = _progress(elapsed, clock.length(self.over))
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
            progress = _progress(elapsed, length)
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


@checked_dataclass(frozen=True, config=_STRICT)
class Polynomial:
    """(1 - progress)^`power` of the way from `end` back to `start`, constant after `over` (Optax: polynomial_schedule)."""

    start: float
    end: float
    over: DurationField
    power: Annotated[float, Field(gt=0, le=100)] = 2.0
    since: PositionField | None = None
    kind: Literal["polynomial"] = "polynomial"

    def at(self, elapsed: jax.Array, clock: Clock) -> jax.Array:
        """Value `elapsed` steps (int32, any shape) after the start; float32."""
        progress = _progress(elapsed, clock.length(self.over))
        return self.end + (self.start - self.end) * (1 - progress) ** self.power

    def describe(self, clock: Clock) -> str:
        """What it does, in words, durations as they are on `clock`."""
        return f"polynomial {self.start:g} to {self.end:g} over {clock.stretch(self.over)}, power {self.power:g}"


@checked_dataclass(frozen=True, config=_STRICT)
class OneCycle:
    """Half a cosine up from `start` to `peak` in the first part `rise` of `over`, half a cosine down to `end` in the rest.

    Smith & Topin, "Super-Convergence", 2018 (Optax: cosine_onecycle_schedule; PyTorch's OneCycleLR ends one step earlier).
    """

    start: float
    peak: float
    end: float
    over: DurationField
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3
    since: PositionField | None = None
    kind: Literal["one_cycle"] = "one_cycle"

    def at(self, elapsed: jax.Array, clock: Clock) -> jax.Array:
        """Value `elapsed` steps (int32, any shape) after the start; float32."""
        length = clock.length(self.over)
        top = int(self.rise * length)
        down = _progress(elapsed - top, max(1, length - top))
        fall = self.end + (self.peak - self.end) * _half_cosine(down)
        up = _progress(elapsed, max(1, top))
        return jnp.where(elapsed < top, self.peak + (self.start - self.peak) * _half_cosine(up), fall)

    def describe(self, clock: Clock) -> str:
        """What it does, in words, durations as they are on `clock`."""
        way = f"{self.start:g} to {self.peak:g} to {self.end:g} over {clock.stretch(self.over)}"
        return f"one cycle {way}, the first {100 * self.rise:g} % up"


@checked_dataclass(frozen=True, config=_STRICT)
class Exponential:
    """`start` times `factor` for `every` stretch of time, without steps (Optax: exponential_decay), at least `floor`."""

    start: float
    factor: Annotated[float, Field(gt=0, le=1)]
    every: DurationField
    floor: float = 0.0
    since: PositionField | None = None
    kind: Literal["exponential"] = "exponential"

    def at(self, elapsed: jax.Array, clock: Clock) -> jax.Array:
        """Value `elapsed` steps (int32, any shape) after the start; float32."""
        passed = jnp.maximum(elapsed, 0) / float(clock.length(self.every))
        return jnp.maximum(self.start * self.factor**passed, self.floor)

    def describe(self, clock: Clock) -> str:
        """What it does, in words, durations as they are on `clock`."""
        floor = f", at least {self.floor:g}" if self.floor else ""
        return f"exponential from {self.start:g}, times {self.factor:g} every {clock.stretch(self.every)}{floor}"


@checked_dataclass(frozen=True, config=_STRICT)
class Ramp:
    """From the augmentation level `start` to the level `end`: each strength in a straight line over `over`, then constant."""

    start: str
    end: str
    over: DurationField
    since: PositionField | None = None
    kind: Literal["ramp"] = "ramp"

    def describe(self, clock: Clock) -> str:
        """What it does, in words, durations as they are on `clock`."""
        return f"ramp {self.start} to {self.end} over {clock.stretch(self.over)}"


def _kind(value: Any) -> str | None:
    if _is_number(value):
        return "number"
    if isinstance(value, str):
        return "level"
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else None


Schedule = Annotated[
    Annotated[float, Tag("number")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[Polynomial, Tag("polynomial")]
    | Annotated[Exponential, Tag("exponential")]
    | Annotated[Cosine, Tag("cosine")]
    | Annotated[OneCycle, Tag("one_cycle")]
    | Annotated[WarmRestarts, Tag("warm_restarts")],
    Discriminator(
        _kind,
        custom_error_type="schedule",
        custom_error_message="Input should be a number, or an object whose 'kind' is linear, polynomial, exponential, cosine, "
        "one_cycle or warm_restarts",
    ),
]
LevelSchedule = Annotated[
    Annotated[str, Tag("level")] | Annotated[Ramp, Tag("ramp")],
    Discriminator(
        _kind,
        custom_error_type="schedule",
        custom_error_message="Input should be the name of an augmentation level, or an object whose 'kind' is ramp",
    ),
]
SCHEDULES = (Linear, Polynomial, Exponential, Cosine, OneCycle, WarmRestarts, Ramp)
KINDS = ("number", "level", *(schedule.kind for schedule in SCHEDULES))


def step_decay(start: float, factor: float, positions: Sequence[Position]) -> dict[Position, float]:
    """Phases of a value that is multiplied by `factor` at each of the positions (PyTorch: MultiStepLR)."""
    return {where: start * factor**number for number, where in enumerate([epoch(1), *positions])}


def constant_then_decay(peak: float, warm_up: Duration, decay: Duration, end: float = 0.0) -> dict[Position, Any]:
    """Phases that rise to `peak`, stay there, and fall to `end` in a line over the last stretch of the run.

    Zhai et al., "Scaling Vision Transformers", 2022; also called warm-up, stable, decay.

    Args:
      peak: the value in between.
      warm_up: length of the rise, from zero.
      decay: length of the fall, in epochs or as a share of the run.
      end: the value after the last update.

    Raises:
      ValueError: `decay` is in steps, which nobody can count from the end.
    """
    decay = _parse_duration(decay)
    if decay.unit == "steps":
        raise ValueError("decay: should be in epochs, or a share of the run")
    fall = last(decay.amount) if decay.unit == "epochs" else Position(100 - decay.amount, "%")
    return {epoch(1): Linear(0.0, peak, warm_up), fall: Linear(peak, end, decay)}


def levels_of(phases: Mapping[Position, Any]) -> tuple[str, ...]:
    """The names of the augmentation levels in a table of phases, each once, in the order in which they are written."""
    ends = [(value.start, value.end) if isinstance(value, Ramp) else (value,) for value in phases.values()]
    return tuple(dict.fromkeys(itertools.chain.from_iterable(ends)))


def extremes(schedule: Any) -> tuple[float, float]:
    """Lowest and highest value that a schedule (or plain number) takes."""
    match schedule:
        case Linear() | Polynomial() | Cosine():
            ends = (schedule.start, schedule.end)
        case WarmRestarts():
            ends = (schedule.peak, schedule.floor)
        case OneCycle():
            ends = (schedule.start, schedule.peak, schedule.end)
        case Exponential():
            ends = (max(schedule.start, schedule.floor), schedule.floor)
        case _:
            ends = (schedule,)
    return min(ends), max(ends)


def beginnings(phases: Mapping[Position, Any], clock: Clock) -> list[tuple[int, Any]]:
    """The phases as (index of the first step, value), in the order of the clock.

    Phases that scaling has brought to the same step are reduced to the last of them, which is the one that acts.
    """
    latest: dict[int, Any] = {}
    for position, value in phases.items():
        latest[max(0, clock.index(position))] = value
    return sorted(latest.items())


def constants(phases: Mapping[Position, Any], clock: Clock) -> tuple[np.ndarray, np.ndarray] | None:
    """Where the phases begin, in steps, and their numbers, both [n], if all of them are plain numbers."""
    pieces = beginnings(phases, clock)
    if not all(isinstance(value, int | float) for _, value in pieces):
        return None
    return np.array([start for start, _ in pieces]), np.array([value for _, value in pieces])


def join(phases: Mapping[Position, Any], clock: Clock) -> Callable[[ArrayLike], jax.Array]:
    """One function `step -> value` from a table of phases: each rules from its position until the next begins.

    A phase's own clock starts where it begins, or at its `since`. The result takes int32 steps of any shape, gives float32
    of that shape, and is jittable. Before the first phase its value at its beginning holds.
    """
    pieces = beginnings(phases, clock)
    starts = np.array([start for start, _ in pieces], np.int32)

    def value_at(step: ArrayLike) -> jax.Array:
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
