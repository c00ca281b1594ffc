"""The recipe as one table: what every moving hyperparameter is at every step of a run."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wrn_jax.config.datasets import planned_sizes, steps_per_epoch
from wrn_jax.config.levels import Strengths
from wrn_jax.config.moving import MOVING
from wrn_jax.config.schedules import Clock, Linear, Position, Ramp, Schedule, beginnings, constants, extremes, join, levels_of
from wrn_jax.config.schema import Config

MOST_SAMPLED = 2**19
"""Steps up to which plans and reports look at every one; about as many are looked at of longer runs."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """The moving values at one step.

    Attributes:
      values: by the names of `MOVING`: float32 scalars. The augmentation level is its place among `Timeline.level_names`, as
        int32; in a recipe with ramps as float32, 0.25 being a quarter of the way from the first to the second.
      strengths: of that level.
    """

    values: dict[str, jax.Array]
    strengths: Strengths

    def __getitem__(self, name: str) -> jax.Array:
        return self.values[name]


@dataclasses.dataclass(frozen=True)
class Event:
    """A transition: from update `step` (from 0), in `epoch` (from 1), `name` changes from `before` to `after`."""

    step: int
    epoch: int
    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before} -> {self.after}"


def shortest(value: np.floating) -> float:
    """The shortest decimal that is this float32: 0.3, not 0.30000001192092896."""
    return float(str(np.float32(value)))


def epoch_text(epoch: float) -> str:
    """A place in epochs (from 1) with four digits, rounded down, so that none in the last epoch of 30 is 31: 30.99."""
    digits = 10 ** max(0, 4 - len(str(int(epoch))))
    return f"{math.floor(epoch * digits + 1e-6) / digits:.10g}"


class Timeline:
    """A recipe on the clock of a run.

    Args:
      config: the recipe, the optimiser and the augmentation levels of a run.
      steps_per_epoch: updates in an epoch.

    Attributes:
      recipe: the recipe.
      epochs: epochs of the run.
      steps: updates of the run.
      steps_per_epoch: updates in an epoch.
      level_names: the augmentation levels of the recipe by their places; the two of a ramp are neighbours, for which one may be
        there twice.
      levels: their strengths by name.
      probabilities: those of the strengths that are above 0 in one of these levels.
      checkpoint_epochs: epochs of the run after which a checkpoint is kept for good.
    """

    def __init__(self, config: Config, steps_per_epoch: int):
        self.recipe = recipe = config.recipe
        self._sam_every = config.optimizer.sam_every
        self._phases = {name: config.phases(name) for name in MOVING}
        self.steps_per_epoch = steps_per_epoch
        self.epochs = recipe.run_epochs
        self.steps = self.epochs * steps_per_epoch
        # The exact ratio of the lengths, so that rounding to whole epochs moves the phases along with the end.
        self.clock = Clock(steps_per_epoch, self.epochs / recipe.epochs, recipe.epochs)
        self.level_names, places = _level_places(recipe.augmentation)
        self._numbers = self._phases | {"augmentation": places}
        self._functions = {name: join(phases, self.clock) for name, phases in self._numbers.items()}
        self._has_ramps = any(isinstance(value, Ramp) for value in recipe.augmentation.values())
        self.levels = {name: config.augmentation_levels[name] for name in self.level_names}
        levels = [self.levels[name] for name in self.level_names]
        self._strengths = jax.tree.map(lambda *values: np.array(values, np.float32), *levels)
        self.probabilities = frozenset(
            name for level in levels for name, value in vars(level).items() if name.endswith("probability") and value > 0
        )
        self.checkpoint_epochs = tuple(
            sorted({min(self.epochs, math.ceil(e * self.clock.scale - 1e-9)) for e in recipe.checkpoint_epochs})
        )

    @classmethod
    def of(cls, config: Config) -> "Timeline":
        """The recipe of `config` on the clock of its run, which the data set, hold-out and batch give. Raises UserError."""
        num_train, _ = planned_sizes(config.data)
        return cls(config, steps_per_epoch(num_train, config.recipe.batch_size))

    def at(self, step: jax.Array) -> Hyperparameters:
        """The values at `step` (int32 scalar, traced or not); jittable."""
        values = {name: function(step) for name, function in self._functions.items()}
        level = values["augmentation"]
        if self._has_ramps:
            below = jnp.floor(level).astype(jnp.int32)
            above, share = jnp.minimum(below + 1, len(self.level_names) - 1), level - below
            # In this form both ends are the levels to the bit.
            between = lambda values: (1 - share) * values[below] + share * values[above]  # noqa: E731
            strengths = jax.tree.map(lambda values: between(jnp.asarray(values)), self._strengths)
        else:
            level = level.astype(jnp.int32)
            strengths = jax.tree.map(lambda values: jnp.asarray(values)[level], self._strengths)
        return Hyperparameters(values | {"augmentation": level}, strengths)

    @functools.cached_property
    def sampled(self) -> np.ndarray:
        """The steps at which plans and reports look at the values, int64 [n], rising: every one.

        Of a run of more than `MOST_SAMPLED` steps some that many: evenly spread ones, the ends of epochs, and those around the
        beginning of each phase.
        """
        if self.steps <= MOST_SAMPLED:
            return np.arange(self.steps)
        half = MOST_SAMPLED // 2
        even = np.linspace(0, self.steps - 1, half).round()
        ends = np.linspace(1, self.epochs, min(self.epochs, half)).round() * self.steps_per_epoch - 1
        around = [start + step for name in MOVING for start, _ in self.beginnings(name) for step in (-2, -1, 0, 1)]
        steps = np.unique(np.concatenate([even, ends, around]).astype(np.int64))
        return steps[(steps >= 0) & (steps < self.steps)]

    @functools.cached_property
    def edges(self) -> np.ndarray:
        """Where the values of `sampled` begin, and where the last one ends, in finished epochs, float64 [n + 1]."""
        return np.append(self.sampled, self.steps) / self.steps_per_epoch

    def index(self, steps: int | Sequence[int] | np.ndarray) -> Any:
        """The places in `sampled` of these steps, or of the ones sampled next after them; as `steps`."""
        return np.searchsorted(self.sampled, steps)

    @functools.cached_property
    def values(self) -> dict[str, np.ndarray]:
        """Every moving value at the steps `sampled`, [n] by name, as in `Hyperparameters.values`."""
        return self._computed(self.sampled)

    def values_at(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        """As `values`, at these steps of the run, integers [n]."""
        if len(self.sampled) == self.steps:
            return {name: values[steps] for name, values in self.values.items()}
        return self._computed(steps)

    def _computed(self, steps: np.ndarray) -> dict[str, np.ndarray]:
        return {name: self._compute(name, steps) for name in MOVING}

    def _compute(self, name: str, steps: np.ndarray) -> np.ndarray:
        """One moving value at `steps`, any integers [n]."""
        phases = self._numbers[name]
        if (pieces := constants(phases, self.clock)) is not None:
            starts, numbers = pieces
            numbers = numbers.astype(np.int32 if MOVING[name].is_level else np.float32)
            return numbers[np.maximum(np.searchsorted(starts, steps, side="right") - 1, 0)]
        return np.asarray(_program(tuple(phases.items()), self.clock)(steps.astype(np.int32)))

    @functools.cached_property
    def shown(self) -> list[str]:
        """The moving values that plans and reports show: all but the optional ones that stay at their default.

        CutMix's alpha is shown wherever there is CutMix.
        """
        usual = Config()
        used = {"cutmix_alpha"} if self.uses("cutmix_probability") else set[str]()
        return [
            name
            for name, value in MOVING.items()
            if not value.optional or name in used or self._phases[name] != usual.phases(name)
        ]

    def uses(self, name: str) -> bool:
        """Whether a number is ever other than 0 in this run."""
        return any(start < self.steps and extremes(value) != (0, 0) for start, value in self.beginnings(name))

    def sharpness_aware(self, steps: range) -> np.ndarray:
        """Which of these updates take two gradients, bool [n]: where `sam_rho` is not 0, every `sam_every`-th of the run's."""
        if not self.uses("sam_rho"):
            return np.zeros(len(steps), bool)
        places = np.array(steps)
        rho = self.values["sam_rho"][places] if len(self.sampled) == self.steps else self._compute("sam_rho", places)
        return (rho > 0) & (places % self._sam_every == 0)

    @functools.cached_property
    def sharpness_aware_steps(self) -> int:
        """How many updates take two gradients; of a very long run, as far as its sampled steps show."""
        if not self.uses("sam_rho"):
            return 0
        # Between a sampled step and the next: the multiples of `sam_every`.
        before = -(-np.append(self.sampled, self.steps) // self._sam_every)
        return int(np.diff(before)[self.values["sam_rho"] > 0].sum())

    def beginnings(self, name: str) -> list[tuple[int, Any]]:
        """The phases of a moving value as (first step, value), in the order of the clock."""
        return beginnings(self._phases[name], self.clock)

    def written(self, name: str, value: Any) -> float | str:
        """One of the `values` as it is written: a number, or the augmentation level, on a ramp "minimal to full (25 %)"."""
        if not MOVING[name].is_level:
            return shortest(value)
        place = int(value)
        share = round(100 * float(value - place))
        return f"{self.level_names[place]} to {self.level_names[place + 1]} ({share} %)" if share else self.level_names[place]

    def levels_at(self, places: np.ndarray) -> list[str]:
        """The augmentation levels at these of the `values` in the order in which they come, on a ramp both of its ends."""
        ends = np.stack([np.floor(places), np.ceil(places)], axis=1).astype(int)
        return [self.level_names[place] for place in dict.fromkeys(ends.ravel().tolist())]

    def epoch_of(self, step: int) -> int:
        """The epoch (from 1) that update `step` (from 0) belongs to."""
        return step // self.steps_per_epoch + 1

    def table(self) -> list[dict[str, float | int | str]]:
        """One row per epoch: the rate at its first and last step and at the step after, the other values at its last step.

        The rate of the step after is what a log shows that asks the scheduler once the epoch is over.
        """
        ends = np.arange(1, self.epochs + 1, dtype=np.int32) * self.steps_per_epoch
        next_rates = self._compute("learning_rate", ends)
        first, last = self.values_at(ends - self.steps_per_epoch), self.values_at(ends - 1)
        rows = []
        for index in range(self.epochs):
            rows.append(
                {
                    "epoch": index + 1,
                    "learning_rate_first": shortest(first["learning_rate"][index]),
                    "learning_rate_last": shortest(last["learning_rate"][index]),
                    "learning_rate_next": shortest(next_rates[index]),
                    **{name: self.written(name, last[name][index]) for name in MOVING if name != "learning_rate"},
                }
            )
        return rows

    def phases(self, names: Sequence[str] | None = None) -> list[Event]:
        """The phases of `names` (none: of all that are shown) in the order of time, the first ones with an empty `before`."""
        events = []
        for name in self.shown if names is None else names:
            before = ""
            for step, value in self.beginnings(name):
                if step < self.steps:
                    after = self._describe(value, step)
                    events.append(Event(step, self.epoch_of(step), name, before, after))
                    before = after
        return sorted(events, key=lambda event: event.step)

    def idle(self) -> list[str]:
        """What this run never has of the recipe: phases after its end, or replaced by one that begins at the same step."""
        never = []
        for name in MOVING:
            phases = [(max(0, self.clock.index(where)), where, value) for where, value in self._phases[name].items()]
            for number, (step, position, value) in enumerate(phases):
                if step >= self.steps or any(step == later for later, *_ in phases[number + 1 :]):
                    never.append(f"{name} {self._describe(value, step)} at {position}")
        return never

    def _describe(self, value: float | str | Schedule | Ramp, begin: int) -> str:
        """A phase that begins at step `begin`, in words; with the place that its own clock starts at, if that is another."""
        if isinstance(value, str):
            return value
        if isinstance(value, int | float):
            return f"{value:g}"
        start = begin if value.since is None else self.clock.index(value.since)
        since = "" if start == begin else f" since epoch {epoch_text(start / self.steps_per_epoch + 1)}"
        return value.describe(self.clock) + since

    def events(self) -> list[Event]:
        """The transitions in the order of time: the phases that replace another."""
        return [event for event in self.phases() if event.before]

    def events_at(self, step: int) -> list[Event]:
        """The transitions that act from update `step` (from 0) on."""
        return self._events_by_step.get(step, [])

    @functools.cached_property
    def _events_by_step(self) -> dict[int, list[Event]]:
        return {step: list(group) for step, group in itertools.groupby(self.events(), lambda event: event.step)}


@functools.lru_cache(maxsize=256)
def _program(phases: tuple[tuple[Position, Any], ...], clock: Clock) -> Callable[[np.ndarray], jax.Array]:
    """The value of these phases at an array of steps, compiled, and kept: compiling takes longer than all else of a plan."""
    return jax.jit(join(dict(phases), clock))


def _level_places(phases: Mapping[Position, str | Ramp]) -> tuple[tuple[str, ...], dict[Position, Any]]:
    """Augmentation levels as numbers: the levels by their places, and the phases with places for names, ramps as lines."""
    names = levels_of(phases)
    for value in phases.values():
        if isinstance(value, Ramp) and (value.start, value.end) not in itertools.pairwise(names):
            names += (value.start, value.end)
    places: dict[Position, Any] = {}
    for where, value in phases.items():
        if isinstance(value, Ramp):
            first = float([*itertools.pairwise(names)].index((value.start, value.end)))
            places[where] = Linear(first, first + 1, value.over, value.since)
        else:
            places[where] = names.index(value)
    return names, places


def level_course(recipe: Any, names: Sequence[str]) -> np.ndarray:
    """The augmentation level at each of the `sampled` steps of a `Timeline` as its place among `names`, float64 [n]."""
    places = [names.index(name) for name in recipe.level_names]
    return np.interp(recipe.values["augmentation"], range(len(places)), places)


def shown_in(timelines: Iterable[Timeline]) -> list[str]:
    """The moving values that any of the timelines shows, in the order of `MOVING`."""
    shown = {name for timeline in timelines for name in timeline.shown}
    return [name for name in MOVING if name in shown]
