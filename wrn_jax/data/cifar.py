"""CIFAR-10, CIFAR-100 and sets in their form: their arrays out of a folder that TFDS prepared.

The folder must be in TFDS's array_record format, the one that can be read without TensorFlow; `data.preparation` makes
such a folder, and one made by TFDS itself (`file_format='array_record'`) serves as well and has the same order of
records.

Decoding 60,000 PNG images takes a while, so the arrays are kept in a cache file named after the content of the record
files: a folder that changes is read again, and one that is copied is not.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import tempfile
from concurrent import futures
from pathlib import Path
from typing import Any, cast

import numpy as np

from wrn_jax.config.datasets import DATASETS
from wrn_jax.runtime import console
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import cache_folder, reason, user_path

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """images: [N, H, W, C] uint8; labels: [N] int32."""

    images: np.ndarray
    labels: np.ndarray


def resolve_directory(directory: str | os.PathLike | None) -> Path:
    """The TFDS data folder as an absolute path: `directory`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
      UserError: see `files.user_path`.
    """
    return user_path(directory or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").absolute()


def find_version(directory: Path, name: str) -> Path | None:
    """The newest version of a set, <directory>/<name>/<version>, of those in array_record if there are any; or None.

    Raises:
      UserError: a folder cannot be listed.
    """
    root = directory / name
    try:
        versions = [entry for entry in os.listdir(root) if re.fullmatch(r"\d+\.\d+\.\d+", entry)]
        versions = [entry for entry in versions if "dataset_info.json" in os.listdir(root / entry)]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"{error.filename or root}: cannot be listed ({reason(error)}); expected a readable folder "
            f"holding {name} as prepared by TFDS"
        ) from error
    if not versions:
        return None
    return root / max(versions, key=lambda entry: (_is_array_record(root / entry), *map(int, entry.split("."))))


def _is_array_record(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return b'"array_record"' in (folder / "dataset_info.json").read_bytes()
    return False


def verify(name: str, folder: Path):
    """Reads all of a prepared folder once, past the cache.

    Raises:
      UserError: it is damaged or not the set `name`.
    """
    for split, files in _inspect(name, folder)[1].items():
        _read_records(name, folder, split, files)


def read_cached(name: str, folder: Path, cache: str | os.PathLike | None) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Reads a prepared folder, its arrays from the cache where they are in it, else from the records.

    Args:
      name: a key of `DATASETS`.
      folder: see `find_version`.
      cache: folder of the cache, made where it is absent; None: $XDG_CACHE_HOME/wrn_jax, else ~/.cache/wrn_jax.

    Returns:
      ({split: Split} for `SPLITS`, class names in the order of the labels).

    Raises:
      UserError: the folder is damaged or not the set `name`. An unusable or unwritable cache is only a message.
    """
    names, files = _inspect(name, folder)
    path = cache_folder(cache) / f"{name}-{folder.name}-{_fingerprint(folder, files)}.npz"
    splits = _read_cache(name, path)
    if splits is None:
        splits = {split: _read_records(name, folder, split, files[split]) for split in SPLITS}
        _write_cache(path, splits)
    return splits, names


def check_labels(where: str | os.PathLike, labels: np.ndarray, num_classes: int):
    """Refuses labels, [N] integers, unless all are in 0..num_classes-1 and every class is equally frequent.

    Raises:
      UserError: they are not; the message starts with `where`.
    """
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"{where}: found labels from {labels.min()} to {labels.max()}; expected 0 to {num_classes - 1}")
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() != counts.max():
        raise UserError(
            f"{where}: found between {counts.min()} and {counts.max()} records of a class; expected "
            f"{len(labels) / num_classes:g} of each"
        )


def _inspect(name: str, folder: Path) -> tuple[tuple[str, ...], dict[str, list[Path]]]:
    """Checks what a prepared folder says of itself: (class names, {split: its record files})."""
    num_classes = DATASETS[name].num_classes
    path = folder / "dataset_info.json"
    text = read_text(path)
    try:
        info = json.loads(text)
        file_format = info.get("fileFormat", "tfrecord")
        lengths = {split["name"]: [int(length) for length in split["shardLengths"]] for split in info["splits"]}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: is damaged ({reason(error)}); expected the description TFDS writes") from error
    if file_format != "array_record":
        raise UserError(
            f"{folder}: is in the format {file_format}, which only TensorFlow can read; expected "
            f"array_record (run `python -m wrn_jax.prepare --name {name} --download --data-dir DIR` for another DIR)"
        )
    files: dict[str, list[Path]] = {}
    for split in SPLITS:
        if split not in lengths:
            raise UserError(f"{path}: split {split!r} is missing, found {sorted(lengths)}; expected train and test")
        found, expected = sum(lengths[split]), DATASETS[name].size(split)
        if found != expected:
            raise UserError(f"{path}: split {split!r} has {found} records; expected {expected}")
        shards = len(lengths[split])
        files[split] = [folder / f"{name}-{split}.array_record-{i:05d}-of-{shards:05d}" for i in range(shards)]
    path = folder / "label.labels.txt"
    names = tuple(line for line in read_text(path).splitlines() if line)
    if len(names) != num_classes:
        raise UserError(f"{path}: found {len(names)} class names; expected {num_classes}")
    return names, files


def _read_records(name: str, folder: Path, split: str, files: list[Path]) -> Split:
    """Reads and decodes all records of a split."""
    import tensorflow_datasets as tfds
    from PIL import Image

    where = ", ".join(map(str, files))
    shape = DATASETS[name].image_shape
    images = np.empty((DATASETS[name].size(split), *shape), np.uint8)
    labels = np.empty(len(images), np.int32)

    def read(start: int) -> int:
        rows = range(start, min(start + 500, len(images)))
        for row, record in zip(rows, cast(Any, source).__getitems__(list(rows)), strict=True):
            with Image.open(io.BytesIO(record["image"])) as image:
                pixels = np.asarray(image)
            if pixels.shape != shape or pixels.dtype != np.uint8:
                raise UserError(f"{where}: record {row} is an image of {pixels.shape} {pixels.dtype}; expected {shape} uint8")
            images[row], labels[row] = pixels, record["label"]
        return len(rows)

    try:
        source = tfds.data_source(
            f"{name}:{folder.name}",
            split=split,
            data_dir=folder.parent.parent,
            download=False,
            decoders={"image": tfds.decode.SkipDecoding()},
        )
        # Reading and decoding leave Python's lock often enough for two to four threads to pay.
        with (
            console.announced(f"decoding {name} {split}", len(images), " images") as progress,
            futures.ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
        ):
            for count in pool.map(read, range(0, len(images), 500)):
                progress.advance(count)
    except UserError:
        raise
    except Exception as error:  # Readers in C++, protobuf and Pillow each have their own; all mean the same here.
        expected = f"{len(images)} records of {name} {split} as TFDS writes them"
        raise UserError(f"{where}: cannot be read ({reason(error)}); expected {expected}") from error
    check_arrays(where, name, split, images, labels)
    return Split(images, labels)


def check_arrays(where: str | os.PathLike, name: str, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Refuses arrays that cannot be the split: number, shape, type, label range, equal class frequencies."""
    info = DATASETS[name]
    found = (images.shape, str(images.dtype), labels.shape, str(labels.dtype))
    expected = ((info.size(split), *info.image_shape), "uint8", (info.size(split),), "int32")
    if found != expected:
        raise UserError(
            f"{where}: split {split!r} holds images {found[0]} {found[1]} with labels {found[2]} "
            f"{found[3]}; expected {expected[0]} {expected[1]} with {expected[2]} {expected[3]}"
        )
    check_labels(where, labels, info.num_classes)


def _fingerprint(folder: Path, files: dict[str, list[Path]]) -> str:
    """Digest of the content of the record files and their description; also finds what cannot be read."""
    digest = hashlib.sha256()
    for path in (folder / "dataset_info.json", folder / "features.json", *files["train"], *files["test"]):
        try:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({reason(error)}); expected a file written by TFDS") from error
    return digest.hexdigest()[:16]


def _read_cache(name: str, path: Path) -> dict[str, Split] | None:
    """The splits in a cache file, or None where there is none or it is of no use."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            splits = {split: Split(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in SPLITS}
        for split, content in splits.items():
            check_arrays(path, name, split, content.images, content.labels)
    except FileNotFoundError:
        return None
    except Exception as error:  # A few flipped bits raise almost anything; whatever it is, the records are still there.
        console.tell(f"{path}: the cached arrays are unusable ({reason(error)}); reading the records again")
        return None
    return splits


def _write_cache(path: Path, splits: dict[str, Split]) -> None:
    """Writes a cache file so that a reader sees all of it or none; a failure is only a warning."""
    arrays = {f"{split}_{field}": getattr(splits[split], field) for split in SPLITS for field in ("images", "labels")}
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, suffix=".tmp", delete=False) as file:
            temporary = file.name
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        console.tell(f"warning: {path}: cannot write the cache ({reason(error)}); the images will be decoded again next time")
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def read_text(path: Path) -> str:
    """The content of a UTF-8 text file.

    Raises:
      UserError: it cannot be read or is no such text.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); expected a text file written by TFDS") from error
