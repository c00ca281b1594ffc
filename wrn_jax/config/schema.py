"""The typed configuration of a run: frozen dataclasses, loaded strictly from Python files, JSON and the command line.

Validation is pydantic's, for three reasons: ranges and unions are declared where the key is, every error carries the path
of the key (so it fits on one line), and the same declaration reads JSON back. A configuration file is ordinary Python that
assigns `config`; it is executed, so run only files that you trust.
"""

import contextlib
import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from wrn_jax.config.datasets import DATASETS, DatasetName, info, steps_per_epoch
from wrn_jax.config.findings import FINDINGS
from wrn_jax.config.levels import LEVELS, Strengths
from wrn_jax.config.moving import MOVING, STRICT, Images, Optimizer, Positive, Recipe
from wrn_jax.config.schedules import KINDS, SCHEDULES, Duration, Position, at, levels_of
from wrn_jax.runtime.text import cut, error, printable, shown

NonNegative = Annotated[int, Field(ge=0, le=2**31 - 1)]

FREE_ON_RESUME = (
    "devices",
    "sharding",
    "model.recompute",
    "eval_batch_size",
    "steps_per_call",
    "checkpoint_steps",
    "checkpoint_minutes",
    "on_nonfinite",
    "max_rollbacks",
    "data.directory",
    "data.archive",
    "data.download",
    "data.cache",
    "optimizer.start_average",
    *(f"silence.{name}" for name in FINDINGS),
)
"""Keys that a resumed run may change, since they decide where and how safely it runs, or what is said about it; results differ
by rounding at most."""


def _check_path(text: str) -> str:
    names = text.split("/")
    if not text.isprintable() or not text or max(len(os.fsencode(name)) for name in names) > 255 or len(text) > 1000:
        raise PydanticCustomError("path", "Input should be a path: 1 to 1000 printable characters, names up to 255 bytes")
    if names[0].startswith("~") and os.path.expanduser(names[0]) == names[0]:
        raise PydanticCustomError("path", "Input should be a path; this user has no home directory")
    return text


FilePath = Annotated[str, AfterValidator(_check_path)]


@dataclass(frozen=True, config=STRICT)
class Model:
    """The network: WideResNet-`depth`-`widen_factor` (Zagoruyko & Komodakis, "Wide Residual Networks", 2016)."""

    depth: int = 28
    """Layers with weights: 6n + 4 (10, 16, 22, 28, 40, ...)."""
    widen_factor: Annotated[int, Field(ge=1, le=1000)] = 10
    """Width multiplier of the groups' 16, 32 and 64 channels."""
    num_classes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Outputs of the last layer; none: as many as the data set has classes."""
    batch_norm_groups: Positive = 1
    """Parts of the batch that are normalised apart: 1 uses the whole global batch, the number of devices gives the
    per-replica habit."""
    recompute: Literal["none", "blocks"] = "none"
    """What training computes a second time to save memory: nothing, or the inside of every block; the results are the
    same."""

    @property
    def title(self) -> str:
        """As in WideResNet-28-10."""
        return f"WideResNet-{self.depth}-{self.widen_factor}"

    @field_validator("depth")
    @classmethod
    def _depth(cls, depth: int) -> int:
        if not 10 <= depth <= 1000 or (depth - 4) % 6:
            raise PydanticCustomError("depth", "Input should be 6n + 4 up to 1000: 10, 16, 22, 28, 34, 40, ...")
        return depth


@dataclass(frozen=True, config=STRICT)
class Data:
    """The data set, and how it is split."""

    name: DatasetName = "cifar100"
    """The data set; "embedded" is drawn by code and needs no download, "own" is what `directory` holds."""
    directory: FilePath | None = None
    """TFDS data directory, or one with the data set in another form, or with images of one's own; none: the environment
    variable TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    archive: FilePath | None = None
    """Local copy of the data set, such as its original archive, to prepare the TFDS directory from when it has none."""
    download: bool = True
    """Whether a missing data set may be downloaded."""
    cache: FilePath | None = None
    """Directory for decoded images; none: wrn_jax in $XDG_CACHE_HOME or ~/.cache."""
    validation_size: NonNegative = 5000
    """Training images held out for choosing the best checkpoint, the same number of each class; 0: none, and "best" is
    chosen on the test set, the published way."""
    validation_seed: NonNegative = 0
    """Seed of the choice of the held-out images."""
    embedded_train: Images = DATASETS["embedded"].num_train
    """Training images of the embedded data set."""
    embedded_test: Images = DATASETS["embedded"].num_test
    """Test images of the embedded data set."""
    embedded_seed: NonNegative = 0
    """Seed of the drawing of the embedded data set."""
    class_names: tuple[str, ...] = ()
    """Classes of the data set "own", in the order of their labels; empty: read from its files, as the next two."""
    own_train: Images = 1
    """Training images of the data set "own"."""
    own_test: Images = 1
    """Test images of the data set "own"."""


@dataclass(frozen=True, config=STRICT)
class Config:
    """A run, completely: the same configuration, versions and hardware give the same bits."""

    seed: NonNegative = 0
    """Seed of initialisation, data order, augmentation, mixup and dropout."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Compute type; auto: bfloat16 on TPU and on NVIDIA GPUs of compute capability 8.0 and later, float16 with dynamic loss
    scaling on older ones, float32 on CPU. Parameters, statistics and sums are float32 always."""
    devices: Positive | None = None
    """Number of devices to use; none: all. A CPU is one device, or one per core where that is faster (small networks)."""
    eval_batch_size: Images = 500
    """Images per evaluation step, over all devices."""
    sharding: Literal["replicated", "fsdp"] = "replicated"
    """Where the state lives: a copy on every device, or its arrays split over them; results agree up to rounding."""
    steps_per_call: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Updates that one call of the compiled program does; a signal waits for the call to end. None: 1 on CPU, 8 elsewhere."""
    checkpoint_steps: Positive | None = None
    """Updates between checkpoints within an epoch, beside those at the end of each; none: off."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] | None = 15.0
    """Minutes between checkpoints within an epoch, beside those at the end of each; none: off. Several processes do without:
    their clocks differ."""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """When loss or gradient norm is no longer finite: stop, or go back to the last checkpoint and take the data in another
    order."""
    max_rollbacks: Positive = 3
    """How often a run may go back in all before it stops."""
    early_stopping_patience: Positive | None = None
    """Epochs without a better accuracy (validation, or test without a hold-out) after which the run ends; none: off."""
    silence: dict[str, str] = Field(default_factory=dict)
    """Findings of `python -m wrn_jax.plan` that are meant to be so: the reason by the finding's name."""
    model: Model = Field(default_factory=Model)
    """The network."""
    data: Data = Field(default_factory=Data)
    """The data."""
    recipe: Recipe = Field(default_factory=Recipe)
    """What moves during training."""
    optimizer: Optimizer = Field(default_factory=Optimizer)
    """The optimiser."""
    augmentation_levels: dict[str, Strengths] = Field(default_factory=lambda: dict(LEVELS))
    """Augmentation levels by name."""

    @field_validator("silence")
    @classmethod
    def _reasons(cls, silence: dict[str, str]) -> dict[str, str]:
        for name, reason in silence.items():
            if name not in FINDINGS:
                close = difflib.get_close_matches(name, FINDINGS, 1)
                hint = f"did you mean '{close[0]}'?" if close else "python -m wrn_jax.plan --help lists them"
                raise PydanticCustomError(
                    "whole_line", "KEY: {name} is no finding; {hint}", {"name": cut(shown(name), 40), "hint": hint}
                )
            if not reason.strip() or not reason.isprintable() or len(reason) > 200:
                raise PydanticCustomError(
                    "whole_line", "KEY.{name} = {reason}: should be a reason of 1 to 200 printable characters",
                    {"name": name, "reason": shown(reason)},
                )  # fmt: skip
        return silence

    @field_validator("augmentation_levels")
    @classmethod
    def _levels(cls, levels: dict[str, Strengths]) -> dict[str, Strengths]:
        for name, strengths in levels.items():
            if not re.fullmatch(r"[\w-]{1,40}", name):
                raise PydanticCustomError(
                    "whole_line", "KEY: a level's name should be 1 to 40 letters, digits, '_' or '-', not {name}",
                    {"name": shown(name)},
                )  # fmt: skip
            for field in dataclasses.fields(strengths):
                value, top = getattr(strengths, field.name), _highest(field.name)
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                if not is_number or not 0 <= value <= top:
                    raise PydanticCustomError(
                        "whole_line", "KEY.{field} = {value}: should be between 0 and {top}",
                        {"field": f"{name}.{field.name}", "top": f"{top:g}", "value": shown(value)},
                    )  # fmt: skip
        return levels

    @model_validator(mode="after")
    def _known_levels(self) -> Self:
        for name in levels_of(self.recipe.augmentation):
            if name not in self.augmentation_levels:
                known = ", ".join(self.augmentation_levels) or "augmentation_levels, which is empty"
                raise PydanticCustomError(
                    "whole_line", "recipe.augmentation = {name}: should be one of {known}",
                    {"known": known, "name": shown(name)},
                )  # fmt: skip
        return self

    @model_validator(mode="after")
    def _countable(self) -> Self:
        """Updates are counted in int32."""
        if self.recipe.run_epochs * steps_per_epoch(info(self.data).num_train, self.recipe.batch_size) >= 2**31:
            raise PydanticCustomError(
                "whole_line", "recipe.epochs = {epochs}, recipe.scale = {scale}: the run should have less than 2**31 updates",
                {"epochs": str(self.recipe.epochs), "scale": f"{self.recipe.scale:g}"},
            )  # fmt: skip
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, lists, numbers and strings, as in `config.json`."""
        return _ADAPTER.dump_python(self, mode="json")

    def phases(self, name: str) -> dict[Position, Any]:
        """The table of a moving value, by its name in `MOVING`."""
        return getattr(getattr(self, MOVING[name].section), name)

    def override(self, changes: Mapping[str, Any], source: str = "override") -> "Config":
        """A copy with some keys changed.

        Args:
          changes: new values by dotted key, such as `{"model.depth": 16}`.
          source: what an error message is to call the origin of the changes.

        Raises:
          UserError: an unknown key, a wrong type or a value out of range.
        """
        tree = self.to_dict()
        for key, value in changes.items():
            _assign(tree, key, plain(value, key, source), source)
        return from_dict(tree, source)


def _highest(name: str) -> float:
    """Upper bound of a field of `Strengths`."""
    shares = ("shift", "brightness", "contrast", "holes_smallest", "holes_largest", "wide_ranges", "crop_reflection")
    if name.endswith("probability") or name in shares:
        return 1.0
    side = max(float(max(known.image_shape)) for known in DATASETS.values())
    bounds = {
        "scale": 0.9,
        "rotate": 180.0,
        "cutout_size": side,
        "hue": 90.0,
        "randaugment_operations": 10.0,
        "randaugment_magnitude": 30.0,
        "crop_padding": side - 1,
        "mean_cutout_size": side,
    }
    return bounds.get(name, 255.0)


_ADAPTER = TypeAdapter(Config)
_SCHEDULE_KEYS = {field.name for kind in SCHEDULES for field in dataclasses.fields(kind)}
_PARTS = {part.__name__: part for part in (Config, Model, Data, Recipe, Optimizer, Strengths, *SCHEDULES)}


def from_dict(tree: Mapping[str, Any], source: str) -> Config:
    """The configuration that `to_dict` or JSON describes; `source` names it in errors. Raises UserError."""
    tree = plain(tree, "", source)
    try:
        return _ADAPTER.validate_json(json.dumps(tree))
    except ValidationError as wrong:
        raise error(source, first_error(wrong)) from None


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, by dotted key."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {key: value for name, node in tree.items() for key, value in flatten(node, f"{prefix}{name}.").items()}


def plain(value: Any, key: str, source: str, depth: int = 0) -> Any:
    """`value` as JSON has it: positions and durations as text, schedules and other parts of a configuration as tables.

    Raises UserError, which names `key`, for what JSON cannot carry.
    """
    if isinstance(value, Position | Duration):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict | list | tuple) and depth > 10:
        raise error(source, f"{'.'.join(key.split('.')[:4])}: is nested too deeply")
    if isinstance(value, list | tuple):
        return [plain(inner, f"{key}.{index}", source, depth + 1) for index, inner in enumerate(value)]
    if isinstance(value, dict):
        table = {plain(name, key, source): inner for name, inner in value.items()}
        if len(table) < len(value):
            raise error(source, f"{key}: a position stands twice")
        for name in table:
            if not isinstance(name, str):
                raise error(
                    source, f"{key or 'the configuration'} has the key {shown(name)}: should be text, such as 'epoch 41'"
                )
        return {name: plain(inner, f"{key}.{name}" if key else name, source, depth + 1) for name, inner in table.items()}
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise error(source, f"{key} = {shown(value)}: should be valid Unicode")
    if isinstance(value, int) and abs(value) >= 10**1000:
        raise error(source, f"{key}: should have at most 1000 digits")
    if not isinstance(value, str | int | float | None):
        raise error(source, f"{key} = {shown(value)}: should be a number, text, true, false, none, or a list or table of these")
    return value


def _assign(tree: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Sets a dotted key. A position in it may hold a point, as in "recipe.dropout.87.5 %", so tables are gone into by name."""
    node, leaf, folder, tables = tree, key, "", {moving.key for moving in MOVING.values()}
    while names := [name for name in node if leaf.startswith(f"{name}.")]:
        if folder in tables and _is_position(leaf):  # "epoch 1.5" is no key of the phase at "epoch 1"
            break
        name = max(names, key=len)
        node, leaf, folder = node[name], leaf.removeprefix(f"{name}."), f"{folder}.{name}".lstrip(".")
        if not isinstance(node, dict):
            raise error(source, _unknown(key))
    if leaf in node:
        node[leaf] = value
    elif folder in tables:
        _add_phase(node, leaf, value)
    elif "." not in leaf and folder.startswith(("recipe.", "optimizer.", "augmentation_levels", "silence")):
        node[leaf] = value
    elif folder == "augmentation_levels":
        raise error(source, f"{cut(printable(key), 100)}: the recipe has no such level; it has {', '.join(node)}")
    else:
        raise error(source, _unknown(key))


def _is_position(text: str) -> bool:
    try:
        return bool(at(text))
    except ValueError:
        return False


def _add_phase(phases: dict[str, Any], position: str, value: Any) -> None:
    """Adds a phase before the first that is later, of those whose positions are given in the same unit; else as the last."""
    entries = list(phases.items())
    place = len(entries)
    with contextlib.suppress(ValueError):  # what is no position is refused when all is checked
        new, others = at(position), [at(name) for name in phases]
        later = [index for index, other in enumerate(others) if other.unit == new.unit and other.rank > new.rank]
        place = min(later, default=place)
    entries.insert(place, (position, value))
    phases.clear()
    phases.update(entries)


def first_error(failure: ValidationError) -> str:
    """The first error of a validation as one line: key, what was found, what is accepted."""
    first = failure.errors(include_url=False)[0]
    where = list(first["loc"])
    if where and isinstance(where[0], int):  # an argument without its name
        names = list(getattr(_PARTS.get(failure.title), "__pydantic_fields__", ()))
        where[0] = names[where[0]] if where[0] < len(names) else f"argument {where[0] + 1}"
    tags = () if where[:1] == ["augmentation_levels"] else KINDS
    key = ".".join(str(part) for part in where if part not in tags and part != "[key]") or "the configuration"
    message = " ".join(first["msg"].removeprefix("Value error, ").removeprefix("Input ").split())
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return _unknown(key)
    if first["type"] == "missing":
        return f"{key}: is missing"
    if first["type"] == "whole_line":
        return key + message.removeprefix("KEY") if message.startswith("KEY") else message
    return f"{key} = {shown(first['input'])}: {message[:1].lower()}{message[1:]}"


def _unknown(key: str) -> str:
    """What to say about a key that does not exist: the nearest one that does, whole or by its last part."""
    known = [name for name, _ in keys()]
    folder, _, leaf = key.rpartition(".")
    if folder.startswith("augmentation_levels."):  # a recipe's own levels are no known keys, but all have the same strengths
        strengths = [field.name for field in dataclasses.fields(Strengths)]
        close = [f"{folder}.{name}" for name in difflib.get_close_matches(leaf, strengths, 1, 0.6)]
    else:
        close = difflib.get_close_matches(key, known, 1, 0.6)
    if not close:
        parts = {name.rpartition(".")[2] for name in known} | _SCHEDULE_KEYS
        close = difflib.get_close_matches(leaf, sorted(parts), 1, 0.6)
    return f"unknown key '{cut(printable(key), 100)}'" + (
        f"; did you mean '{close[0]}'?" if close else "; --help shows all keys"
    )


def keys() -> list[tuple[str, tuple[str, str, str]]]:
    """All keys in order, each with (type, default, description), for help texts and suggestions."""
    return list(_walk(Config(), ""))


def _walk(node: Any, prefix: str) -> Any:
    for name, field in type(node).__pydantic_fields__.items():
        value = getattr(node, name)
        if hasattr(value, "__pydantic_fields__"):
            yield from _walk(value, f"{prefix}{name}.")
        elif name == "augmentation_levels":
            for level, strengths in value.items():
                for part in dataclasses.fields(strengths):
                    yield f"{name}.{level}.{part.name}", ("float", f"{getattr(strengths, part.name):g}", "")
        else:
            yield prefix + name, (_type_name(field), _show(value), " ".join((field.description or "").split()))


def _type_name(field: Any) -> str:
    text = str(field.annotation)
    if "Literal" in text:
        return text[text.index("[") + 1 : text.rindex("]")].replace("'", "").replace(", ", "|")
    if "dict[str, str]" in text:
        return "reason by finding"
    if "dict" in text:
        return "phases"
    if "tuple" in text:
        return "[str, ...]" if "str" in text else "[int, ...]"
    names = [name for name in ("int", "float", "bool", "str") if f"{name}" in text.replace("FieldInfo", "")]
    return names[0] + (" or none" if "None" in text else "")


def _show(value: Any) -> str:
    if isinstance(value, dict) and value:
        return ", ".join(f"{phase} from {position}" for position, phase in value.items())
    if isinstance(value, dict):
        return "{}"
    return {None: "none", (): "[]"}.get(value, str(value))
