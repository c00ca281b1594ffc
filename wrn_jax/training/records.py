"""What a run writes down: the header of a start, the row of an epoch, the notes of a checkpoint.

Each class writes itself as plain JSON data (`to_dict`) and reads that back (`from_dict`), strictly: a key that is missing or
unknown, a number that is none, a share beyond 0..1 is refused in one line. `FORMAT` counts the changes that an older version
would misread; what was written before it was counted is of format 1.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from wrn_jax.config import Config
from wrn_jax.config.moving import MOVING
from wrn_jax.config.timeline import Timeline
from wrn_jax.evaluation.files import Count, Number, Share
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import check_format, read_jsonl

FORMAT = 1
_LATER = ("origin", "changes", "data_digests", "back_to", "branches")
"""Keys of a header that older versions do not know, left out where they are empty."""
SPLITS = {"train": "training", "valid": "validation", "test": "test"}
"""The splits as the records call them, and as people do."""

Text = Annotated[str, Field(strict=True)]


@with_config(ConfigDict(extra="forbid"))
@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochRow:
    """A line of `metrics.jsonl`: one epoch.

    Attributes:
      epoch: from 1.
      step: finished updates; None in a log that does not say.
      moving: the moving values by name, as the epoch's last step used them; columns of their own in the file.
      train_loss, train_accuracy: mean over the images as trained on: augmented, mixed, with dropout; a log may hold no loss.
      valid_loss, valid_accuracy: of the hold-out after the epoch; None without one.
      test_loss, test_accuracy: of the test images after the epoch.
      skipped_steps: updates that loss scaling skipped.
      seconds: of the whole epoch, evaluation included.
      images_per_second: of the training alone.
      network: of a run with a weight average, the network that the figures of hold-out and test are of, "average" or "raw";
        the average has not begun before. None in other runs, whose rows do not say.
      raw_valid_loss and so on: those of the network itself, in a run with a weight average.
    """

    epoch: Annotated[int, Field(strict=True, ge=1)]
    step: Count | None
    moving: dict[str, float | str] = dataclasses.field(default_factory=dict)
    train_loss: Number | None
    train_accuracy: Share
    valid_loss: Number | None = None
    valid_accuracy: Share | None = None
    test_loss: Number
    test_accuracy: Share
    skipped_steps: Count = 0
    seconds: Number | None = None
    images_per_second: Number | None = None
    network: Literal["average", "raw"] | None = None
    raw_valid_loss: Number | None = None
    raw_valid_accuracy: Share | None = None
    raw_test_loss: Number | None = None
    raw_test_accuracy: Share | None = None

    def accuracy(self, split: str) -> float:
        """The accuracy on "train", "valid" or "test", 0..1."""
        return getattr(self, f"{split}_accuracy")

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON data, moving values as columns."""
        columns: dict[str, Any] = {"format": FORMAT}
        for name, value in vars(self).items():
            if name == "moving":
                columns |= self.moving
            elif value is not None or not name.startswith(("raw_", "network")):
                columns[name] = value
        return columns

    @classmethod
    def from_dict(cls, tree: Any, source: str) -> Self:
        """The row that `to_dict` wrote; `source` names it in errors. Raises UserError."""
        tree = _without_format(tree, source)
        kinds = {name: _TEXT if MOVING[name].is_level else _NUMBER for name in tree if name in MOVING}
        moving = {name: _checked(kind, tree.pop(name), f"{source}, {name}") for name, kind in kinds.items()}
        return _checked(_EPOCH_ROW, tree | {"moving": moving}, source)


def rows_from(trees: Sequence[Any], source: Path) -> list[EpochRow]:
    """The rows of epochs 1, 2, ..., from plain JSON data. Raises UserError, which names `source` and the row."""
    rows: list[EpochRow] = []
    for number, tree in enumerate(trees, 1):
        if not isinstance(tree, dict) or tree.get("epoch") != number:
            raise UserError(f"{source}: row {number} should be of epoch {number}")
        rows.append(EpochRow.from_dict(tree, f"{source}: epoch {number}"))
        if (rows[-1].valid_accuracy is None) != (rows[0].valid_accuracy is None):
            raise UserError(f"{source}: epoch {number}, valid_accuracy: should be there for all epochs or for none")
    return rows


def read_rows(path: Path) -> list[EpochRow]:
    """The rows of a `metrics.jsonl`; none if there is no such file. Raises UserError."""
    return rows_from(read_jsonl(path), path)


def read_run(path: Path, config: Config, timeline: Timeline) -> list[EpochRow]:
    """As `read_rows`, and of the run that this configuration describes. Raises UserError for rows that are not."""
    rows = read_rows(path)
    for row in rows:
        held_out = row.valid_accuracy is not None
        if row.epoch > timeline.epochs or row.step != row.epoch * timeline.steps_per_epoch:
            kind = f"{timeline.epochs} epochs of {timeline.steps_per_epoch} updates"
        elif held_out != (config.data.validation_size > 0):
            kind = "no hold-out" if held_out else "a hold-out"
        else:
            continue
        raise UserError(f"{path}: epoch {row.epoch} and config.json are not of one run, which has {kind}")
    return rows


def finished_rows(path: Path, config: Config, timeline: Timeline, epochs: int) -> list[EpochRow]:
    """The records of the epochs that the checkpoint has finished. Raises UserError if they are not all there."""
    rows = read_run(path, config, timeline)[:epochs]
    if len(rows) < epochs:
        raise UserError(f"{path}: should hold epochs 1 to {epochs}, which the last checkpoint has finished")
    return rows


def best_row(rows: Iterable[EpochRow], judge: str) -> EpochRow:
    """The row of the best epoch by `judge`, "valid" or "test", the first among equals. Raises ValueError for none."""
    return max(rows, key=lambda row: row.accuracy(judge))


def epochs_without_better(rows: Sequence[EpochRow], judge: str) -> int:
    """Finished epochs since the best one by `judge`, "valid" or "test"; 0 if there is none."""
    return rows[-1].epoch - best_row(rows, judge).epoch if rows else 0


@with_config(ConfigDict(extra="forbid"))
@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What a run goes back to that did not begin with random weights; `origin.json` of its work directory.

    Attributes:
      kind: "branch", which goes on from another run's checkpoint, or "weights", which begins with weights alone.
      source: the other run's work directory, or a file of weights; absolute.
      checkpoint: which one of the run was asked for: "best", "last" or an epoch.
      step, epoch: finished updates and epochs of that checkpoint; None for a file, and before it was looked for.
      agreed: of a branch, the first updates of the other run that its own recipe alone gives as well, from random weights on;
        below `step` for a run that no single recipe gives.
      classes: numbers of classes there and here where they differ, so that the last layer began anew; else None.
      network: of weights of a run with a weight average: that, or the network itself, "raw"; else None. Before it was looked
        for, the one that was asked for.
    """

    kind: Literal["branch", "weights"]
    source: Text
    checkpoint: Text
    step: Count | None = None
    epoch: Count | None = None
    agreed: Count | None = None
    classes: tuple[Count, Count] | None = None
    network: Literal["average", "raw"] | None = None

    @property
    def is_seamless(self) -> bool:
        """Whether the run has the bits of one that was trained from the start by its own recipe."""
        return self.kind == "branch" and self.step is not None and self.agreed == self.step

    def describe(self) -> str:
        """Where the run comes from, in words."""
        where = self.source if self.step is None else f"{self.source} after update {self.step} (epoch {self.epoch})"
        if self.kind == "branch":
            unlike = f", whose course is not that of this recipe alone from update {(self.agreed or 0) + 1} on"
            return f"branched from {where}{unlike if self.agreed is not None and self.agreed < (self.step or 0) else ''}"
        head = f", the last layer anew: {self.classes[1]} classes instead of {self.classes[0]}" if self.classes else ""
        which = {None: "", "average": ", their average", "raw": ", not their average"}[self.network]
        return f"began with the weights of {where}{which}{head}"

    @classmethod
    def from_dict(cls, tree: Any, source: str) -> Self:
        """The origin that JSON holds; `source` names it in errors. Raises UserError."""
        return _checked(_ORIGIN, tree, source)


@with_config(ConfigDict(extra="forbid"))
@dataclasses.dataclass(frozen=True, kw_only=True)
class Header:
    """A line of `header.jsonl`: one start of a run.

    Attributes:
      time: of the start, as in 2026-01-31T12:00:00+0000.
      command: as typed, in shell syntax.
      first_step: finished updates of the checkpoint that it went on from; 0 for none.
      rollbacks: how often the run had gone back to a checkpoint; of a branch, the one that it branched from as well.
      back_to: the finished updates of those checkpoints, see `CheckpointNotes`.
      branches: epochs after which other runs are to go on from this one, of all starts so far.
      seed: of the run.
      precision: compute type.
      best_chosen_on: the split that chooses the best epoch, "valid" or "test".
      parameters: of the network.
      train_examples: training images after the hold-out.
      steps_per_epoch: updates in an epoch.
      hardware, versions: as `runtime.environment` gives them, and `devices_used`.
      deterministic: whether a GPU was made to repeat itself bit for bit.
      origin: what the run goes back to that did not begin with random weights.
      changes: keys of the configuration that are others from this start on, as in "key was X, is Y".
      data_digests: of the training, held-out and test images, see `loading.digests`.
    """

    time: Text
    command: Text
    first_step: Count
    rollbacks: Count
    seed: Count
    precision: Text
    best_chosen_on: Text
    parameters: Count
    train_examples: Count
    steps_per_epoch: Count
    hardware: dict[str, Any]
    versions: dict[str, Text]
    deterministic: bool = False
    origin: Origin | None = None
    changes: list[Text] = dataclasses.field(default_factory=list)
    data_digests: dict[str, Text] = dataclasses.field(default_factory=dict)
    back_to: tuple[Count, ...] = ()
    branches: tuple[Count, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The header as plain JSON data; without what older versions do not know, where it is empty."""
        tree = dataclasses.asdict(self)
        return {"format": FORMAT} | {name: tree[name] for name in tree if tree[name] or name not in _LATER}

    @classmethod
    def from_dict(cls, tree: Any, source: str) -> Self:
        """The header that `to_dict` wrote; `source` names it in errors. Raises UserError."""
        return _checked(_HEADER, _without_format(tree, source), source)


def describe_hardware(hardware: Mapping[str, Any]) -> str:
    """The `hardware` of a header in words, as in "2 x NVIDIA H100 (gpu, 16 CPU cores)".

    JAX may show a CPU as several devices, which are still one CPU: "AMD EPYC (cpu, 2 cores as 2 devices)". Records that are
    not of this package may lack some of it.
    """
    name, platform = hardware.get("device", "?"), hardware.get("platform", "?")
    used, cores = hardware.get("devices_used", hardware.get("devices", "?")), hardware.get("cpu_cores")
    if platform != "cpu":
        return f"{used} x {name} ({platform}{'' if cores is None else f', {cores} CPU cores'})"
    parts = [] if cores is None else [f"{cores} core{'s' * (cores != 1)}"]
    if used not in (1, "?"):
        parts = [" as ".join([*parts, f"{used} devices"])]
    return f"{name} ({', '.join([platform, *parts])})"


def read_headers(path: Path) -> list[Header]:
    """The headers of a `header.jsonl`, the first start first; none if there is no such file. Raises UserError."""
    return [Header.from_dict(tree, f"{path}: line {number}") for number, tree in enumerate(read_jsonl(path), 1)]


@with_config(ConfigDict(extra="forbid"))
@dataclasses.dataclass
class EpochSums:
    """Running sums over the steps of an epoch, on the host.

    Attributes:
      loss, correct, examples: over the updates whose loss was finite; the loss weighted with the examples.
      skipped: updates that loss scaling skipped.
      skipped_in_a_row: those since the last that was not.
      seconds: spent on the epoch, before the interruption that the run goes on after.
      last: metrics of the last update, as plain numbers; a checkpoint keeps the moving values of them.
    """

    loss: Number = 0.0
    correct: Number = 0.0
    examples: Count = 0
    skipped: Count = 0
    skipped_in_a_row: Count = 0
    seconds: Number = 0.0
    last: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, metrics: dict[str, Any]) -> None:
        """Adds the metrics of an update, as plain numbers."""
        self.skipped += not metrics["finite"]
        self.skipped_in_a_row = 0 if metrics["finite"] else self.skipped_in_a_row + 1
        if math.isfinite(metrics["loss"]):
            self.loss += metrics["loss"] * metrics["examples"]
            self.correct += metrics["correct"]
            self.examples += metrics["examples"]
        self.last = metrics

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain data, to go on from."""
        return vars(self) | {"last": {name: self.last[name] for name in MOVING if name in self.last}}


@with_config(ConfigDict(extra="forbid"))
@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointNotes:
    """What a checkpoint says beside its arrays.

    Attributes:
      rollbacks: how often the run had gone back to a checkpoint; the order of the data depends on it.
      back_to: the finished updates of those checkpoints, 0 for the beginning; empty in what older versions wrote.
      sums: of the unfinished epoch; None at the end of one.
      metrics: the row of the epoch that it finishes; None within one.
    """

    rollbacks: Count
    back_to: tuple[Count, ...] = ()
    sums: EpochSums | None = None
    metrics: EpochRow | None = None

    def to_dict(self) -> dict[str, Any]:
        """The notes as plain JSON data; what is None or empty is left out."""
        parts = {"sums": self.sums, "metrics": self.metrics}
        trees = {name: part.to_dict() for name, part in parts.items() if part is not None}
        back_to = {"back_to": list(self.back_to)} if self.back_to else {}
        return {"format": FORMAT, "rollbacks": self.rollbacks} | back_to | trees

    @classmethod
    def from_dict(cls, tree: Any, source: str) -> Self:
        """The notes that `to_dict` wrote; `source` names them in errors. Raises UserError."""
        tree = _without_format(tree, source)
        if "metrics" in tree:
            tree["metrics"] = EpochRow.from_dict(tree["metrics"], source)
        return _checked(_NOTES, tree, source)


_NUMBER, _TEXT = TypeAdapter[Any](Number), TypeAdapter[Any](Text)
_EPOCH_ROW = TypeAdapter(EpochRow)
_HEADER = TypeAdapter(Header)
_ORIGIN = TypeAdapter(Origin)
_NOTES = TypeAdapter(CheckpointNotes)


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint on disk.

    Attributes:
      step: finished updates.
      epoch: finished epochs.
      accuracy: 0..1, of the split that chooses the best; None within an epoch.
      notes: what was given to `save`.
      metadata: what was given to `Checkpoints`, and what `save` adds.
      is_described: whether all this could be read; otherwise it is damaged.
    """

    step: int
    epoch: int
    accuracy: float | None
    notes: CheckpointNotes = dataclasses.field(default=CheckpointNotes(rollbacks=0), compare=False)
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)
    is_described: bool = True

    @property
    def network(self) -> str:
        """The network that its figures are of: "average" where it has an average that has begun, else "raw"."""
        return self.metadata.get("network", "raw")

    def choose_network(self, asked: str | None) -> str:
        """The network that was asked for; None: the one its figures are of. Raises UserError if it has no such average."""
        if asked == "average" and self.network != "average":
            raise UserError(f"--network average: checkpoint {self.step} has no average that has begun; --network raw is there")
        return asked or self.network

    def evaluation_name(self, network: str) -> str:
        """What the files of an evaluation of this network are called, without their ends."""
        return f"step-{self.step}" if network == self.network else f"step-{self.step}-raw"


def _without_format(tree: Any, source: str) -> dict[str, Any]:
    """A copy of the object without its format number. Raises UserError for no object, or one of a newer format."""
    if not isinstance(tree, Mapping):
        raise UserError(f"{source}: should be an object")
    check_format(tree.get("format", FORMAT), FORMAT, source)
    return {name: value for name, value in tree.items() if name != "format"}


def _checked(adapter: TypeAdapter[Any], tree: Any, source: str) -> Any:
    """What the adapter makes of plain data. Raises UserError for the first thing that is wrong with it."""
    try:
        return adapter.validate_python(tree)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = ", ".join([source, *filter(None, [".".join(map(str, wrong["loc"]))])])
        if wrong["type"] == "missing":
            raise UserError(f"{place}: is missing") from None
        if wrong["type"] == "unexpected_keyword_argument":
            raise UserError(f"{place}: is not known to this version") from None
        raise UserError(f"{place} = {wrong['input']!r:.60}: {wrong['msg'].removeprefix('Input ')}") from None
