"""Runs that another program made, read from what it wrote down: TensorBoard events, CSV, lines of JSON, MLflow's folders.

Whatever the form, a run is first a table of curves: by name of the column, the value at each place (an epoch, or a step). Then
the columns are taken for what they are called, or for what `Reading` says. Nothing is guessed in silence: an accuracy that may
be in per cent or a fraction is refused, and a validation accuracy is not taken for one on test images.
"""

import csv
import dataclasses
import itertools
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wrn_jax.report.published_runs import decode
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.records import EpochRow

Curve = dict[float, float]
"""A value by its place, which rises."""

ALIASES = {
    "test_accuracy": ("test_accuracy", "test_acc", "test_top1", "test_acc1", "accuracy_test", "acc_test",
                      "test_epoch_accuracy"),
    "test_loss": ("test_loss", "loss_test", "test_epoch_loss"),
    "train_accuracy": ("train_accuracy", "train_acc", "training_accuracy", "accuracy_train", "acc_train", "train_top1",
                       "accuracy", "acc", "train_epoch_accuracy"),
    "train_loss": ("train_loss", "training_loss", "loss_train", "loss", "train_epoch_loss"),
    "valid_accuracy": ("valid_accuracy", "val_accuracy", "valid_acc", "val_acc"),
    "valid_loss": ("valid_loss", "val_loss"),
    "learning_rate": ("learning_rate", "lr"),
    "seconds": ("seconds",),
    "images_per_second": ("images_per_second",),
}  # fmt: skip
"""The quantities of an epoch, and the columns that are taken for them where none is named; as `_plain_name` has them."""

UNITS = ("percent", "fraction")
COLUMNS_HELP = "which column of other programs is what, such as test_accuracy=val/acc"
UNIT_HELP = "of the accuracies of other programs, where the values do not tell"
_ACCURACIES = ("test_accuracy", "train_accuracy", "valid_accuracy")
_PLACES = ("epoch", "step", "global_step", "iteration")
"""The columns that say where a line is, as `_plain_name` has them."""
_FILES = ("metrics.csv", "summary.csv", "metrics.jsonl")
"""What Lightning, timm, and scripts call their records."""
_SPLITS = ("train", "training", "valid", "validation", "val", "test", "eval")
"""What folders of the events of one run are called."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How to read the runs of other programs.

    Attributes:
      columns: by quantity (a key of `ALIASES`) the columns that hold it, of which the first that a run has is taken.
      unit: of the accuracies, "percent" or "fraction"; None where the values tell.
    """

    columns: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    unit: str | None = None

    @classmethod
    def of(cls, pairs: Sequence[str], unit: str | None = None) -> "Reading":
        """From texts such as test_accuracy=val/acc. Raises UserError."""
        columns: dict[str, tuple[str, ...]] = {}
        for pair in pairs:
            quantity, _, column = pair.partition("=")
            if quantity not in ALIASES or not column:
                raise UserError(f"--columns {pair}: should be QUANTITY=COLUMN, the quantity one of {', '.join(ALIASES)}")
            columns[quantity] = (*columns.get(quantity, ()), column)
        return cls(columns, unit)


def is_run(path: Path) -> bool:
    """Whether a folder is a run of another program: holds records of a kind that can be read, and is none of ours."""
    if _is_ours(path):
        return False
    return bool(_events(path)) or (path / "metrics").is_dir() or _has_records(path)


def _is_ours(path: Path) -> bool:
    if (path / "header.jsonl").exists():
        return True
    if not ((path / "config.json").exists() and (path / "metrics.jsonl").exists()):
        return False
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return True  # and damaged, which is told when it is read
    return not isinstance(config, dict) or "recipe" in config


def _has_records(path: Path) -> bool:
    return any((path / name).is_file() for name in _FILES)


def holds_runs(path: Path) -> bool:
    """Whether a folder has runs in it, ours or of other programs, rather than being one.

    Keras and others put the events of one run into folders that are called after the splits.
    """
    if _is_ours(path):
        return False
    below = [folder for folder in path.iterdir() if folder.is_dir()]
    if any(map(_is_ours, below)):
        return True
    if _has_records(path) or any(events.parent == path for events in _events(path)):
        return False
    names = [folder.name for folder in below if folder.name != "metrics" and is_run(folder)]
    return bool(names) and not any(name in _SPLITS for name in names)


@dataclasses.dataclass(frozen=True)
class Log:
    """A run as another program wrote it down.

    Attributes:
      rows: of its epochs, as long as it has a test accuracy; what is not recorded is NaN.
      lost: epochs after them in which its test accuracy was no number.
      in_percent: whether accuracies were read as per cent.
      note: what a reader must know of how they were read.
    """

    rows: list[EpochRow]
    lost: int
    in_percent: bool
    note: str


def read(path: Path, reading: Reading) -> Log:
    """A run of another program. Raises UserError for what cannot be read, OSError and UnicodeDecodeError for files."""
    table = _table(path)
    curves, taken, notes = table.curves, dict[str, Curve](), list[str]()
    unit, lost = "epoch" if table.is_epoch else "step", 0
    for quantity, names in ALIASES.items():
        named = reading.columns.get(quantity)
        fitting = [name for name in named if name in curves] if named else _by_alias(curves, names)
        if fitting and fitting[0] in table.stuck:
            text = f"{fitting[0]} has {table.stuck[fitting[0]]} values, all at step {next(iter(curves[fitting[0]])):g}"
            if quantity == "test_accuracy":
                raise UserError(f"{path}: {text}, so they are of no epochs; it should be logged with its epoch or step")
            notes.append(f"{text}, so there is no {quantity}")
            continue
        if fitting:
            taken[quantity] = curves[fitting[0]]
        elif named:
            notes.append(f"no column {' or '.join(named)}, so no {quantity}")
        if len(fitting) > 1 and not named:
            notes.append(f"for {quantity} the column {fitting[0]} is taken, not {' or '.join(fitting[1:])}")
        if fitting and fitting[0] in table.again:
            place = f"{unit} {table.again[fitting[0]]:g}"
            notes.append(f"{fitting[0]} begins again at {place}; what was there from then on before is passed over")
        if quantity == "test_accuracy" and fitting and (lost := table.lost.get(fitting[0], 0)):
            last = f"{unit} {max(curves[fitting[0]]):g}"
            notes.append(f"{fitting[0]} is no number {lost} times after {last}, so the run counts as one that diverged")
    if not curves:
        raise UserError(f"{path}: no column holds finite numbers, with a point as decimal mark, by epoch or step")
    if "test_accuracy" not in taken:
        listing = ", ".join(curves) or "none"
        named = reading.columns.get("test_accuracy")
        wanted = f"no column {' or '.join(named)}" if named else "no column is called a test accuracy"
        raise UserError(f"{path}: {wanted}; say which it is with --columns test_accuracy=COLUMN, one of: {listing}")
    if taken.get("valid_accuracy") is taken["test_accuracy"]:
        del taken["valid_accuracy"]
        taken.pop("valid_loss", None)
    accuracies = {name: taken[name] for name in _ACCURACIES if name in taken}
    has_sign = any(curves[name] is curve for name in table.percent for curve in accuracies.values())
    factor, note = unit_of(path, accuracies, reading.unit, has_sign)
    ends = list(taken["test_accuracy"])
    _check_epochs(path, table.is_epoch, ends)
    by_epoch = {name: _at_ends(curve, ends) for name, curve in taken.items()}
    rows = []
    for index in range(len(ends)):
        figures = {name: values[index] for name, values in by_epoch.items()}
        figures |= {name: figures[name] / factor for name in _ACCURACIES if name in figures}
        rows.append(_row(index + 1, figures))
    held_out = [row.valid_accuracy is not None for row in rows]
    if any(held_out) and not all(held_out):
        rows = [dataclasses.replace(row, valid_accuracy=None, valid_loss=None) for row in rows]
        notes.append("some epochs have no validation accuracy, so it counts for none")
    return Log(rows, lost, factor == 100, "; ".join([note, "each test accuracy is taken for that of an epoch", *notes]))


def _row(epoch: int, figures: Mapping[str, float]) -> EpochRow:
    def optional(name: str) -> float | None:
        value = figures.get(name, math.nan)
        return None if math.isnan(value) else value

    rate = optional("learning_rate")
    return EpochRow(
        epoch=epoch, step=None, moving={} if rate is None else {"learning_rate": rate}, train_loss=optional("train_loss"),
        train_accuracy=figures.get("train_accuracy", math.nan), valid_loss=optional("valid_loss"),
        valid_accuracy=optional("valid_accuracy"), test_loss=figures.get("test_loss", math.nan),
        test_accuracy=figures["test_accuracy"], seconds=optional("seconds"), images_per_second=optional("images_per_second"),
    )  # fmt: skip


def unit_of(path: Path, accuracies: Mapping[str, Curve], unit: str | None, has_sign: bool) -> tuple[float, str]:
    """What to divide accuracies by, and the note that says so.

    Without a sign, fractions are told by values that are not above 1, some of them above 0.02 and some not above 0.5: a run of
    a hundred classes that learns nothing has about 0.01, or about 1 in per cent.

    Args:
      path: of the run, for errors.
      accuracies: by quantity, as they are written.
      unit: what was asked for, "percent" or "fraction"; None: what the values tell.
      has_sign: whether a percent sign stands at some of them.

    Raises:
      UserError: it cannot be told, or what was asked for cannot be.
    """
    if has_sign and unit == "fraction":
        raise UserError(f"{path}: a percent sign stands at accuracies; leave out --unit fraction")
    values = [value for curve in accuracies.values() for value in curve.values()]
    highest = {name: max(curve.values()) for name, curve in accuracies.items()}
    if min(values) < 0 or max(values) > 100:
        raise UserError(f"{path}: accuracies from {min(values):g} to {max(values):g}, which are no accuracies")
    above = [name for name, high in highest.items() if high > 1]
    unclear = len(above) not in (0, len(highest)) or max(values) <= 0.02 or (not above and min(values) > 0.5)
    if unit is None and not has_sign and unclear:
        found = ", ".join(f"{name} up to {high:g}" for name, high in highest.items())
        raise UserError(f"{path}: per cent or fractions of 1? ({found}); say which with --unit percent or --unit fraction")
    percent = has_sign or (bool(above) if unit is None else unit == "percent")
    if not percent and above:
        raise UserError(f"{path}: {above[0]} up to {highest[above[0]]:g} is no fraction of 1; leave out --unit fraction")
    told = "since some are above 1" if percent else "since none is above 1 and some are above 0.02"
    why = "as the sign says" if has_sign else "as --unit says" if unit else told
    kind = "per cent" if percent else "fractions of 1"
    return 100.0 if percent else 1.0, f"made by another program; accuracies are read as {kind}, {why}"


def _check_epochs(path: Path, is_epoch: bool, ends: Sequence[float]) -> None:
    """Raises UserError where the test accuracy is known to be of some epochs only."""
    gaps = [after - before for before, after in itertools.pairwise(ends)]
    if is_epoch and (not 0 <= ends[0] <= 1 or any(gap != 1 for gap in gaps)):
        listing = ", ".join(f"{end:g}" for end in ends[:5])
        raise UserError(f"{path}: the test accuracy is of epochs {listing}, ...; it should be there after every one")
    if gaps and max(gaps) > 1.5 * min(gaps):
        steps = f"{min(gaps):g} to {max(gaps):g}"
        raise UserError(f"{path}: the test accuracy is there after {steps} steps; it should be after every epoch")


def _at_ends(curve: Curve, ends: Sequence[float]) -> list[float]:
    """The last value up to each end and after the end before; NaN where there is none."""
    values, places = [], sorted(curve)
    index = 0
    for end in ends:
        value = math.nan
        while index < len(places) and places[index] <= end:
            value = curve[places[index]]
            index += 1
        values.append(value)
    return values


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _by_alias(curves: Mapping[str, Curve], names: Sequence[str]) -> list[str]:
    """The columns that are called by one of these names, in the order of the names."""
    return [column for name in names for column in curves if _plain_name(column) == name]


Points = list[tuple[float, float]]
"""Places and values, which may be NaN, in the order in which they were written down."""


@dataclasses.dataclass(frozen=True)
class _Table:
    """What a run wrote down.

    Attributes:
      is_epoch: whether the places are epochs.
      curves: by name.
      again: where curves begin again that go back to a place which they had, as a run does that is started or resumed anew.
      stuck: numbers of values of curves by step that have several, all of them at one.
      lost: see `_lost`.
      percent: names of the curves at whose values a percent sign stands.
    """

    is_epoch: bool
    curves: dict[str, Curve]
    again: dict[str, float]
    stuck: dict[str, int]
    lost: dict[str, int]
    percent: frozenset[str] = frozenset()

    @classmethod
    def of(cls, is_epoch: bool, points: Mapping[str, Points], percent: frozenset[str] = frozenset()) -> "_Table":
        """The table of what was written.

        Of a place written twice in a row the later value counts; of curves that begin again what is written last.
        """
        curves, again, stuck, lost = {}, {}, {}, {}
        for name, written in points.items():
            curve, before = {}, -math.inf
            known = [(place, value) for place, value in written if not math.isnan(value)]
            for place, value in known:
                if place < before and place in curve:
                    curve, again[name] = {old: curve[old] for old in curve if old < place}, place
                curve[place], before = value, place
            if not curve:
                continue
            curves[name] = dict(sorted(curve.items()))
            if not is_epoch and len(known) > 1 and len({place for place, _ in known}) == 1:
                stuck[name] = len(known)
            lost[name] = _lost(written, curve)
        return cls(is_epoch, curves, again, stuck, lost, percent)


def _lost(written: Points, curve: Curve) -> int:
    """At how many places after a curve, written down after it, stands no number; 0 where that fills gaps within it too."""
    numbers = [index for index, (_, value) in enumerate(written) if not math.isnan(value)]
    before, after = ({place for place, _ in part} for part in (written[: numbers[-1]], written[numbers[-1] :]))
    last = max(curve)
    is_filled = any(place < last for place in before - curve.keys())
    return 0 if is_filled else sum(place > last for place in after)


def _table(path: Path) -> _Table:
    if path.is_file():
        return _of_lines(path) if path.suffix == ".jsonl" else _of_csv(path)
    if file := next((path / name for name in _FILES if (path / name).is_file()), None):
        return _table(file)
    return _Table.of(False, _of_mlflow(path / "metrics") if (path / "metrics").is_dir() else _of_events(path))


def _of_csv(path: Path) -> _Table:
    """Columns of a CSV by `epoch`, a step or the line; of MLflow's long form (key, value, step) a curve for each key."""
    text = decode(path.read_bytes())
    first = text.lstrip().partition("\n")[0]
    try:
        reader = csv.DictReader(text.splitlines(), delimiter=max(",;\t", key=first.count), skipinitialspace=True)
        names, lines = list(reader.fieldnames or ()), list(reader)
    except csv.Error as error:
        raise UserError(f"{path}: is no CSV: {error}") from None
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise UserError(f"{path}: column {twice[0]} is there twice")
    if lines and {"key", "value", "step"} <= lines[0].keys():
        lines = [{"step": line["step"], line["key"]: line["value"]} for line in lines]
    return _columns(lines)


def _of_lines(path: Path) -> _Table:
    """Lines of JSON; a last one that is unfinished is passed over."""
    texts = [text for text in decode(path.read_bytes()).splitlines() if text.strip()]
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            lines.append(json.loads(text))
        except (ValueError, RecursionError) as error:
            if number < len(texts) or number == 1:
                raise UserError(f"{path}: is not JSON line by line: {error}") from None
    return _columns([line for line in lines if isinstance(line, dict)])


def _columns(lines: Sequence[Mapping[Any, Any]]) -> _Table:
    names = {_plain_name(str(name)): name for line in lines for name in line if name is not None}
    place_name = next((names[place] for place in _PLACES if place in names), None)
    points: dict[str, Points] = {}
    percent: set[str] = set()
    for number, line in enumerate(lines):
        place = float(number) if place_name is None else _place(line.get(place_name))
        for name, cell in line.items():
            value = _number(cell)
            if name and name != place_name and value is not None and place is not None:
                points.setdefault(str(name).strip(), []).append((place, value))
                if isinstance(cell, str) and cell.strip().endswith("%"):
                    percent.add(str(name).strip())
    return _Table.of("epoch" in names, points, frozenset(percent))


def _number(cell: Any) -> float | None:
    """The number in a cell, NaN for one that is not finite; None where there is none."""
    if isinstance(cell, bool):
        return None
    try:
        value = float(cell.strip().removesuffix("%") if isinstance(cell, str) else cell)
    except OverflowError:
        return math.nan
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else math.nan


def _place(cell: Any) -> float | None:
    place = _number(cell)
    return None if place is None or math.isnan(place) else place


def _of_mlflow(folder: Path) -> dict[str, Points]:
    """A file for each metric, with lines of time, value and step."""
    points: dict[str, Points] = {}
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        cells = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        written = [(_place(line[2]), _number(line[1])) for line in cells if len(line) >= 3]
        known = [(step, value) for step, value in written if step is not None and value is not None]
        points[path.relative_to(folder).as_posix()] = known
    return points


def _events(folder: Path) -> list[Path]:
    return sorted(folder.rglob("events.out.tfevents.*"), key=lambda path: (path.parent, path.name))


def _of_events(folder: Path) -> dict[str, Points]:
    """The scalars of TensorBoard by tag, in a folder below with its name in front."""
    from google.protobuf.message import DecodeError
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] (made at run time)

    points: dict[str, Points] = {}
    for path in _events(folder):
        below = path.parent.relative_to(folder).as_posix()
        try:
            for event in map(Event.FromString, _records(path)):
                for value in event.summary.value:
                    if (number := _scalar(value)) is not None:
                        tag = value.tag if below == "." else f"{below}/{value.tag}"
                        points.setdefault(tag, []).append((float(event.step), number))
        except (DecodeError, struct.error):
            raise UserError(f"{path}: is no file of TensorBoard events, or a damaged one") from None
    return points


def _records(path: Path) -> Iterator[bytes]:
    """The records of an events file: length, its checksum, data, its checksum; an unfinished one at the end is passed over."""
    content, at = path.read_bytes(), 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        if at + 16 + length > len(content):
            return
        yield content[at + 12 : at + 12 + length]
        at += 16 + length


def _scalar(value: Any) -> float | None:
    """A scalar as it is written by PyTorch (a number) or by TensorFlow 2 (a tensor without axes, float32 or float64)."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return _number(value.simple_value)
    tensor = value.tensor
    if kind != "tensor" or tensor.tensor_shape.dim or tensor.dtype not in (1, 2):
        return None
    if tensor.tensor_content:
        return _number(struct.unpack("<f" if tensor.dtype == 1 else "<d", tensor.tensor_content)[0])
    return next((_number(number) for number in (*tensor.float_val, *tensor.double_val)), None)
