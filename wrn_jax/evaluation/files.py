"""What an evaluation leaves behind, written and read by the same code: STEM.json, a `Record`, and STEM.npz, the predictions.

`FORMAT` counts the changes that an older version would misread; a record without a number is of format 1.
"""

import dataclasses
import hashlib
import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from wrn_jax.evaluation.metrics import Scored
from wrn_jax.runtime import files
from wrn_jax.runtime.errors import UserError

FORMAT = 1

Count = Annotated[int, Field(strict=True, ge=0)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Gap = Annotated[float, Field(strict=True, ge=-1, le=1)]


@dataclasses.dataclass(frozen=True)
class _Figures:
    """What `metrics.summary` gives, to check a record by; some records have less."""

    count: Annotated[int, Field(strict=True, ge=1)]
    accuracy: Share
    without_prediction: Count = 0
    accuracy_interval: Annotated[list[Share], Field(min_length=2, max_length=2)] | None = None
    top5: Share | None = None
    loss: Number | None = None
    calibration_error: Share | None = None


@dataclasses.dataclass(frozen=True)
class _Scaled:
    """What is said of a temperature, likewise."""

    value: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
    loss: Number | None = None
    calibration_error: Share | None = None


_FIGURES, _SCALED = TypeAdapter(_Figures), TypeAdapter(_Scaled)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """All figures of an evaluated network, and what they were computed by, on and from.

    Accuracies are in 0..1, losses in nats. What an older version did not write is None.

    Attributes:
      time, command: when, and as typed, in shell syntax.
      step, epoch: finished updates and epochs of the checkpoint; None for a file of weights.
      chosen_as: which of "best" and "last" the checkpoint is.
      judge: the split that chose the best epoch, "valid" or "test".
      weights: the file of weights, instead of a checkpoint.
      network: of a checkpoint with a weight average, "average", or "raw" for the network itself; None for others.
      data, mean, std: name of the data set, and the normalisation of its images.
      precision: compute type.
      hardware, versions: as `runtime.environment` gives them, and `devices_used`.
      splits: for "test", "valid" and "train", as far as evaluated, what `metrics.summary` gives.
      clean_gap: accuracy on training images minus that on test images.
      temperature: `value`, `fitted_on`, and `loss` and `calibration_error` of the test images with it.
      temperature_missing: why there is none.
      superclasses, superclass_accuracy, classes, confused: see `examination.breakdown`.
      flip: summary of the mean over each test image and its mirror image.
      corruptions, mean_corruption_accuracy, corruptions_in_mean: see `examination.corruption_figures`.
      corruptions_from, corruption_images: see `corrupted.Corrupted`.
    """

    time: str | None = None
    command: str | None = None
    step: Count | None
    epoch: Count | None
    chosen_as: list[str] = dataclasses.field(default_factory=list)
    judge: str | None = None
    weights: str | None = None
    network: str | None = None
    data: str | None = None
    mean: tuple[Number, ...] | None = None
    std: tuple[Number, ...] | None = None
    precision: str | None = None
    hardware: dict[str, Any] | None = None
    versions: dict[str, str] | None = None
    splits: dict[str, dict[str, Any]]
    clean_gap: Gap | None = None
    temperature: dict[str, Any] | None = None
    temperature_missing: str | None = None
    superclasses: dict[str, Share | None] | None = None
    superclass_accuracy: Share | None = None
    classes: dict[str, Share | None] | None = None
    confused: list[tuple[str, str, Count]] | None = None
    flip: dict[str, Any] | None = None
    corruptions: Annotated[dict[str, Annotated[list[Share], Field(min_length=1)]], Field(min_length=1)] | None = None
    mean_corruption_accuracy: Share | None = None
    corruptions_in_mean: list[str] | None = None
    corruptions_from: str | None = None
    corruption_images: Count | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON data: floats to six decimals, None for one that is not finite."""
        optional = ("weights", "network", "temperature_missing")
        tree = {name: value for name, value in vars(self).items() if value is not None or name not in optional}
        return _rounded({"format": FORMAT} | tree)

    @staticmethod
    def from_dict(tree: Any, source: Path) -> "Record":
        """The record that `to_dict` wrote; `source` names it in errors. Raises UserError."""
        if isinstance(tree, Mapping):
            files.check_format(tree.get("format", FORMAT), FORMAT, source)
        try:
            record = _RECORD.validate_python(tree)
            for figures in ({"test": record.splits.get("test")} | record.splits).values():
                _FIGURES.validate_python(figures)
            if record.flip is not None:
                _FIGURES.validate_python(record.flip)
            if record.temperature is not None:
                _SCALED.validate_python(record.temperature)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, wrong["loc"])) or "splits"
            raise UserError(f"{source}: is no evaluation ({place}: {wrong['msg']}); delete it, or evaluate again") from None
        return record


_RECORD = TypeAdapter(Record)
_OF_CORRUPTIONS = (
    "corruptions",
    "mean_corruption_accuracy",
    "corruptions_in_mean",
    "corruptions_from",
    "corruption_images",
)
_STEP = re.compile(r"step-([0-9]+)\b")


def write(directory: Path, stem: str, record: Record, scored: Mapping[str, Scored]) -> None:
    """Writes STEM.npz and STEM.json, replacing what was there; nobody meets half a file. Raises UserError.

    Args:
      directory: where to.
      stem: of the names.
      record: the figures.
      scored: the predictions to keep, by split; "test" is one of them.
    """
    arrays: dict[str, Any] = {"test_digest": np.array(digest(scored["test"].labels))}
    for split, images in scored.items():
        arrays |= {f"{split}_{field}": array for field, array in compact(images).items()}
    path = directory / f"{stem}.json"
    try:
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        files.write_atomically(directory / f"{stem}.npz", content.getvalue())
        files.write_atomically(path, json.dumps(record.to_dict(), indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def completed(record: Record, path: Path) -> tuple[Record, list[str]]:
    """The record with what an evaluation before found out that this one was not asked for, and what that is, in words.

    Only if its figures of the test images are the same, which says that it was of these weights on these images.

    Args:
      record: what is to be written.
      path: where to; what is there is the evaluation before.
    """
    try:
        old = read(path)
    except (UserError, OSError):  # none, or one that is replaced
        return record, []
    if old.to_dict()["splits"]["test"] != record.to_dict()["splits"]["test"] or old.precision != record.precision:
        return record, []
    kept: dict[str, Any] = {}
    words = []
    if record.corruptions is None and old.corruptions is not None:
        kept |= {name: getattr(old, name) for name in _OF_CORRUPTIONS}
        words.append("corrupted images")
    if record.flip is None and old.flip is not None:
        kept["flip"] = old.flip
        words.append("mirror images")
    if "train" not in record.splits and "train" in old.splits:
        kept |= {"splits": record.splits | {"train": old.splits["train"]}, "clean_gap": old.clean_gap}
        words.append("training images")
    return dataclasses.replace(record, **kept), words


def set_aside(directory: Path, step: int) -> list[str]:
    """Moves the evaluations of checkpoints after `step` updates to `outdated/`, since the run does those updates anew.

    Returns a line that says so, if there are any. Raises UserError.
    """
    later = [path for path in directory.glob("step-*") if (name := _STEP.match(path.name)) and int(name[1]) > step]
    try:
        for path in later:
            (directory / "outdated").mkdir(exist_ok=True)
            path.replace(directory / "outdated" / path.name)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be moved ({error.strerror})") from None
    return [f"evaluations after step {step} are outdated; moved to {directory / 'outdated'}"] * bool(later)


def read(path: Path) -> Record:
    """The record in STEM.json. Raises UserError for a damaged one, OSError where it cannot be read."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        tree = None
    return Record.from_dict(tree, path)


def read_correct(path: Path, count: int) -> tuple[np.ndarray, str] | None:
    """Of STEM.npz, which test images were right, bool [N], and the `digest` of their labels; None if there is no such file.

    Raises UserError for a damaged one, or one of another number of images than `count`.
    """
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            predicted, labels, label_digest = (arrays[f"test_{name}"] for name in ("predicted", "labels", "digest"))
        whole = predicted.dtype.kind in "iu" and labels.dtype.kind in "iu" and label_digest.dtype.kind == "U"
        if whole and predicted.shape == labels.shape == (count,) and label_digest.ndim == 0:
            return predicted == labels, str(label_digest)
    except (ValueError, KeyError, OSError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error):
        pass
    raise UserError(f"{path}: holds no readable predictions; delete it, or evaluate again")


def compact(scored: Scored) -> dict[str, np.ndarray]:
    """`labels` and `predicted` (the number of classes: none) in the smallest type, `confidence` and `own` as float16, [N]."""
    small = np.min_scalar_type(scored.num_classes)
    return {
        "labels": scored.labels.astype(small),
        "predicted": scored.predicted.astype(small),
        "confidence": scored.confidence.astype(np.float16),
        "own": scored.own.astype(np.float16),
    }


def digest(labels: np.ndarray) -> str:
    """A hash of labels [N] in their order: evaluations on the same images have the same."""
    return hashlib.sha256(labels.astype("<i4").tobytes()).hexdigest()


def _rounded(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {name: _rounded(child) for name, child in node.items()}
    if isinstance(node, list | tuple):
        return [_rounded(child) for child in node]
    if isinstance(node, float):
        return round(node, 6) if math.isfinite(node) else None
    return node
