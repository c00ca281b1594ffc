"""What moves during training: `Recipe` and `Optimizer`, whose annotated fields are the one table of moving values.

A new moving value is a field with a `MovingValue`, its effect in one place (the step, the loss, the optimiser), and its test.
Validation, the timeline, plans, records, curves and reports take name, label, bounds and format from here.
"""

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError, core_schema

from wrn_jax.config.schedules import LevelSchedule, Position, PositionField, Schedule, at, epoch, extremes

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)

Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Images = Annotated[int, Field(ge=1, le=1_000_000)]


@dataclasses.dataclass(frozen=True)
class MovingValue:
    """A value that moves on the clock of a run; an annotation of its field, whose bounds it checks.

    Attributes:
      label: the name in tables and plots, with the unit if it has one.
      low, high: bounds of the values, both allowed.
      format: how a value is written in tables, as in Python's `format`.
      is_level: whether the values are names of augmentation levels and not numbers.
      optional: whether plans and reports leave it out where it stays at its default.
      name: the name of the field, and of the column in `metrics.jsonl`.
      section: the part of the configuration that has the field, "recipe" or "optimizer".
    """

    label: str
    low: float = 0.0
    high: float = 1000.0
    format: str = "g"
    is_level: bool = False
    optional: bool = False
    name: str = ""
    section: str = ""

    @property
    def key(self) -> str:
        """The dotted key, such as recipe.dropout."""
        return f"{self.section}.{self.name}"

    def check(self, phases: dict[Any, Any]) -> dict[Any, Any]:
        """The phases as they are. Raises PydanticCustomError for a value out of bounds."""
        for position, value in phases.items():
            if not self.is_level and not (self.low <= extremes(value)[0] and extremes(value)[1] <= self.high):
                raise PydanticCustomError(
                    "whole_line", "KEY.{position} = {value}: should be between {low} and {high}",
                    {"value": str(value), "position": str(position), "low": f"{self.low:g}", "high": f"{self.high:g}"},
                )  # fmt: skip
        return phases

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))


def _as_phases(value: Any) -> Any:
    """A bare value means "from epoch 1 on"; of a table, no position may stand twice, however it is written."""
    if not isinstance(value, Mapping) or "kind" in value:
        return {"epoch 1": value}
    positions: list[Position] = []
    for name in value:
        with contextlib.suppress(ValueError):  # what is no position is refused where it stands
            positions.append(at(name))
    if twice := [str(position) for position in positions if positions.count(position) > 1]:
        raise PydanticCustomError("whole_line", "KEY: {position} stands twice", {"position": twice[0]})
    return value


def _check_order(phases: dict[Any, Any]) -> dict[Any, Any]:
    for unit in ("epoch", "step", "last", "%"):
        ranks = [position.rank for position in phases if position.unit == unit]
        if ranks != sorted(ranks):
            raise PydanticCustomError("whole_line", "KEY: the positions of the phases should be in the order of time")
    first = next(iter(phases), None)
    if first is None or first.plus or first.unit == "last" or first.count != (1 if first.unit == "epoch" else 0):
        raise PydanticCustomError("whole_line", "KEY: the first phase should begin at 'epoch 1' (or 'step 0')")
    return phases


Phases = Annotated[dict[PositionField, Schedule], BeforeValidator(_as_phases), AfterValidator(_check_order)]
LevelPhases = Annotated[dict[PositionField, LevelSchedule], BeforeValidator(_as_phases), AfterValidator(_check_order)]


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """What moves during training, on one clock; momentum and weight decay stand in `Optimizer`. Moving values are tables from
    positions to values."""

    epochs: Positive = 100
    """Length of the recipe as written, before `scale`."""
    scale: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Stretches everything that is given in epochs: 0.1 runs 100 epochs in 10. The run's length is rounded to whole epochs."""
    batch_size: Images = 256
    """Images per update, over all devices."""
    learning_rate: Annotated[Phases, MovingValue("learning rate")] = Field(default_factory=lambda: {epoch(1): 0.1})
    """Learning rate."""
    dropout: Annotated[Phases, MovingValue("dropout", high=0.99)] = Field(default_factory=lambda: {epoch(1): 0.0})
    """Dropout rate inside the blocks."""
    mixup_alpha: Annotated[Phases, MovingValue("mixup alpha")] = Field(default_factory=lambda: {epoch(1): 0.0})
    """Both parameters of mixup's Beta distribution; 0 is off."""
    cutmix_probability: Annotated[Phases, MovingValue("CutMix probability", high=1.0, optional=True)] = Field(
        default_factory=lambda: {epoch(1): 0.0}
    )
    """Share of the batches that get CutMix instead of mixup."""
    cutmix_alpha: Annotated[Phases, MovingValue("CutMix alpha", low=0.001, optional=True)] = Field(
        default_factory=lambda: {epoch(1): 1.0}
    )
    """Both parameters of CutMix's Beta distribution."""
    label_smoothing: Annotated[Phases, MovingValue("label smoothing", high=0.99)] = Field(
        default_factory=lambda: {epoch(1): 0.0}
    )
    """Probability mass that is spread evenly over all classes."""
    augmentation: Annotated[LevelPhases, MovingValue("augmentation", is_level=True)] = Field(
        default_factory=lambda: {epoch(1): "full"}
    )
    """Name of an augmentation level, or a ramp between two."""
    checkpoint_epochs: tuple[Positive, ...] = ()
    """Epochs (of the recipe as written) after which a checkpoint is kept for good."""

    @property
    def run_epochs(self) -> int:
        """Epochs of the run: `epochs * scale`, rounded, at least 1."""
        return max(1, math.floor(self.epochs * self.scale + 0.5))


@dataclass(frozen=True, config=STRICT)
class Optimizer:
    """Stochastic gradient descent with momentum: clip, L2, momentum, learning rate, in this order."""

    momentum: Annotated[Phases, MovingValue("momentum", high=0.9999, optional=True)] = Field(
        default_factory=lambda: {epoch(1): 0.9}
    )
    """Momentum."""
    nesterov: bool = False
    """Whether the momentum is Nesterov's (in the form of Sutskever et al., 2013, as PyTorch and Optax have it)."""
    weight_decay: Annotated[Phases, MovingValue("weight decay (L2)", high=1.0, optional=True)] = Field(
        default_factory=lambda: {epoch(1): 1e-3}
    )
    """L2 coefficient, added to the clipped gradients."""
    decay: Literal["all", "kernels"] = "all"
    """What is decayed: all parameters, or the kernels of convolutions and the linear layer alone."""
    clip_norm: Annotated[float, Field(gt=0, le=1e9)] | None = 1.0
    """Global norm to which the raw gradients are clipped; none: no clipping."""
    sam_rho: Annotated[Phases, MovingValue("SAM rho", optional=True)] = Field(default_factory=lambda: {epoch(1): 0.0})
    """Radius of sharpness-aware minimisation; where it is 0, a step takes one gradient instead of two."""
    sam_group: Images | None = None
    """Images that are perturbed together, which divides the batch; none: the whole batch."""
    sam_adaptive: bool = False
    """Whether the perturbation is ASAM's, in units of the parameters' sizes."""
    sam_every: Positive = 1
    """Where there is a rho, every how many steps of the run one is sharpness-aware; the others are plain."""
    average_decay: Annotated[Phases, MovingValue("average decay", high=0.999999, optional=True)] = Field(
        default_factory=lambda: {epoch(1): 0.0}
    )
    """Decay of the moving average of parameters and statistics, which is evaluated instead of them; 0: no average yet."""
    start_average: bool = False
    """Whether a run that had no average may be resumed with one, which begins from the weights of its last checkpoint."""

    @property
    def decays(self) -> str:
        """What is decayed, in words."""
        return "all parameters" if self.decay == "all" else "kernels only"

    @property
    def sam_perturbs(self) -> str:
        """What is perturbed together, in words."""
        return "the whole batch" if self.sam_group is None else f"{self.sam_group} images"


MOVING = {
    name: dataclasses.replace(note, name=name, section=section)
    for section, part in (("recipe", Recipe), ("optimizer", Optimizer))
    for name, annotation in get_type_hints(part, include_extras=True).items()
    for note in getattr(annotation, "__metadata__", ())
    if isinstance(note, MovingValue)
}
"""The moving values by name, in the order of their columns."""
NUMERIC = tuple(name for name, value in MOVING.items() if not value.is_level)
"""Names of those whose values are numbers."""
