"""CIFAR in the other forms in which people have it: the original archives, parquet, and `.npz`.

The original archives are the binary one and the one of pickles for Python, which torchvision and Keras keep; parquet is what
Hugging Face keeps. Images come in the order of their files, and `in_tfds_order` shuffles them as TFDS does, so the binary
archive gives the same run as the folder that is prepared from it.
"""

import dataclasses
import io
import json
import math
import os
import pickle
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wrn_jax.config.datasets import DATASETS
from wrn_jax.data import cifar, own_classes
from wrn_jax.data.cifar import SPLITS, Split
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import reason

MAX_FILE_BYTES = 1 << 28  # no file of an original archive is longer


@dataclasses.dataclass(frozen=True)
class Archive:
    """An original archive.

    Attributes:
      url, size, sha256: as TFDS has them on record too.
      folder: in which its files are.
      files: names of the files of each split, whose records are labels, one byte each, and pixels, channel by channel.
      label_files: each label's file of names and number of classes, in the order in which the labels stand in a record.
    """

    url: str
    size: int
    sha256: str
    folder: str
    files: dict[str, tuple[str, ...]]
    label_files: dict[str, tuple[str, int]]


ARCHIVES = {
    "cifar10": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        size=170_052_171,
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        folder="cifar-10-batches-bin",
        files={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        label_files={"label": ("batches.meta.txt", 10)},
    ),
    "cifar100": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        size=168_513_733,
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        folder="cifar-100-binary",
        files={"train": ("train.bin",), "test": ("test.bin",)},
        label_files={"coarse_label": ("coarse_label_names.txt", 20), "label": ("fine_label_names.txt", 100)},
    ),
}


@dataclasses.dataclass(frozen=True)
class _Pickles:
    """The original archive for Python: its folder, the files of each split, the file of names, and the keys in them."""

    folder: str
    files: dict[str, tuple[str, ...]]
    names: str
    labels: dict[str, tuple[str, str]]


_PICKLES = {
    "cifar10": _Pickles(
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        "batches.meta",
        {"label": ("labels", "label_names")},
    ),
    "cifar100": _Pickles(
        "cifar-100-python",
        {"train": ("train",), "test": ("test",)},
        "meta",
        {"coarse_label": ("coarse_labels", "coarse_label_names"), "label": ("fine_labels", "fine_label_names")},
    ),
}
_PARQUET = {
    "cifar10": {"label": "label"},
    "cifar100": {"coarse_label": "coarse_label", "label": "fine_label"},
}
_NOT_READ = {
    ".arrow": "Arrow files of Hugging Face; write them with `to_parquet`, as train.parquet and test.parquet",
    ".mat": "files for Matlab; the archive for Python or the binary one is read",
    ".zip": "a zip file; unpack it",
    **dict.fromkeys(own_classes.SUFFIXES, "image files; --config.data.name=own reads them, in train/CLASS/ and test/CLASS/"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Original:
    """A whole set in the order of the original files.

    Attributes:
      where: the file or folder.
      images: by split, [N, H, W, C] uint8.
      labels: by split and kind ("label", and of CIFAR-100 "coarse_label"), [N] int32.
      names: by kind, in the order of the labels.
    """

    where: Path
    images: dict[str, np.ndarray]
    labels: dict[str, dict[str, np.ndarray]]
    names: dict[str, tuple[str, ...]]


def read(name: str, place: Path) -> Original | None:
    """Reads the set `name` out of a file or a folder, in whichever form it is; of a folder also what lies up to three below.

    Returns:
      The set, or None where `place` holds none in these forms.

    Raises:
      UserError: it is damaged, or is the other CIFAR set.
    """
    for candidate in _candidates(place):
        for known in (name, *(other for other in ARCHIVES if other != name and candidate == place)):
            for form in (_binary, _pickles, _parquet, _npz):
                try:
                    original = form(known, candidate)
                except UserError:
                    raise
                except Exception as error:  # tarfile, pickle, pyarrow and Pillow each have their own; all mean the same here.
                    raise UserError(
                        f"{candidate}: cannot be read ({reason(error)}); expected a whole copy of {known}"
                    ) from error
                if original and known == name:
                    _check(name, original)
                    return original
                if original:
                    raise UserError(f"{candidate}: holds {known}; expected {name} (or use --config.data.name={known})")
    return None


def in_tfds_order(original: Original) -> tuple[dict[str, Split], tuple[str, ...]]:
    """({split: Split}, class names) with the records of each split in the order in which TFDS writes them."""
    from tensorflow_datasets.core import hashing

    splits = {}
    for split in SPLITS:
        hasher, count = hashing.Hasher(split), len(original.images[split])
        order = sorted(range(count), key=lambda index: hasher.hash_key(index))
        splits[split] = Split(original.images[split][order], original.labels[split]["label"][order])
    return splits, original.names["label"]


def write_binary(name: str, original: Original, folder: Path) -> None:
    """Writes the files of the original binary archive into `folder`. Raises OSError."""
    archive = ARCHIVES[name]
    for kind, (file, _) in archive.label_files.items():
        (folder / file).write_text("\n".join(original.names[kind]) + "\n")
    for split, files in archive.files.items():
        pixels = original.images[split].transpose(0, 3, 1, 2).reshape(len(original.images[split]), -1)
        labels = [original.labels[split][kind][:, None] for kind in archive.label_files]
        records = np.concatenate([*labels, pixels], axis=1).astype(np.uint8)
        for file, part in zip(files, np.array_split(records, len(files)), strict=True):
            (folder / file).write_bytes(part.tobytes())


def what_else(place: Path) -> str:
    """What a folder without a set in a known form holds instead, as the end of a message; "" where nothing is recognised."""
    for path in _candidates(place):
        suffixes = {child.suffix.lower() for child in (path.iterdir() if path.is_dir() else [path])}
        for suffix, remark in _NOT_READ.items():
            if suffix in suffixes:
                return f"; {path} holds {remark}"
    return ""


def record_bytes(name: str) -> int:
    """Bytes of a record in the binary archive: its labels, one byte each, and its pixels."""
    return len(ARCHIVES[name].label_files) + math.prod(DATASETS[name].image_shape)


def _candidates(place: Path) -> Iterator[Path]:
    """`place`; if it is a folder, then the folders in it and in those, and the files that are called after CIFAR."""
    yield place
    level = [place] if _is_open(place) else []
    for _ in range(3):
        children = sorted(child for folder in level for child in folder.iterdir())
        level = [child for child in children if _is_open(child) and not child.name.startswith(".")]
        yield from level
        yield from (child for child in children if re.match(r"cifar-?10", child.name) and child.is_file())


def _is_open(path: Path) -> bool:
    """Whether it is a folder that may be looked into; one that may not holds nothing for us."""
    return path.is_dir() and os.access(path, os.R_OK | os.X_OK)


def _files(path: Path, folder: str, wanted: list[str]) -> Callable[[str], bytes] | None:
    """What reads the files `wanted` of an original archive, unpacked at `path` or packed in it; None if one is missing."""
    if path.is_dir():
        return (lambda file: _whole(path / file)) if all((path / file).is_file() for file in wanted) else None
    if not path.is_file() or not tarfile.is_tarfile(path):
        return None
    contents: dict[str, bytes] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            parent, _, file = member.name.removeprefix("./").rpartition("/")
            if file in wanted and parent.rpartition("/")[2] == folder and member.isreg() and member.size <= MAX_FILE_BYTES:
                source = tar.extractfile(member)
                assert source, "of regular files there is a reader"
                contents[file] = source.read()
            elif not contents and parent and parent.rpartition("/")[2] != folder:
                return None  # another archive, which need not be unpacked to its end
    return contents.__getitem__ if len(contents) == len(wanted) else None


def _whole(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"{path}: is too long for a file of CIFAR; expected at most {MAX_FILE_BYTES} bytes")
    return path.read_bytes()


def _binary(name: str, path: Path) -> Original | None:
    if not path.is_dir():
        return None  # `preparation` unpacks it, and knows what each file in it should be
    archive = ARCHIVES[name]
    wanted = [
        *(file for files in archive.files.values() for file in files),
        *(file for file, _ in archive.label_files.values()),
    ]
    content = _files(path, archive.folder, wanted)
    if content is None:
        return None
    images, labels = {}, {}
    for split, files in archive.files.items():
        records = np.frombuffer(b"".join(map(content, files)), np.uint8).reshape(-1, record_bytes(name))
        labels[split] = {kind: records[:, place].astype(np.int32) for place, kind in enumerate(archive.label_files)}
        images[split] = _pixels(name, records[:, len(archive.label_files) :])
    names = {kind: tuple(content(file).decode().split()) for kind, (file, _) in archive.label_files.items()}
    return Original(path, images, labels, names)


def _pickles(name: str, path: Path) -> Original | None:
    known = _PICKLES.get(name)
    if known is None:
        return None
    content = _files(path, known.folder, [*(file for files in known.files.values() for file in files), known.names])
    if content is None:
        return None
    images, labels = {}, {}
    for split, files in known.files.items():
        batches = [_unpickled(content(file)) for file in files]
        images[split] = _pixels(name, np.concatenate([batch["data"] for batch in batches]))
        labels[split] = {
            kind: np.concatenate([np.asarray(batch[key], np.int32) for batch in batches])
            for kind, (key, _) in known.labels.items()
        }
    meta = _unpickled(content(known.names))
    names = {kind: tuple(_text(entry) for entry in meta[key]) for kind, (_, key) in known.labels.items()}
    return Original(path, images, labels, names)


def _parquet(name: str, path: Path) -> Original | None:
    files = {split: [*sorted(path.glob(f"{split}*.parquet")), *sorted(path.glob(f"{split}/*.parquet"))] for split in SPLITS}
    known = _PARQUET.get(name)
    if known is None or not path.is_dir() or not all(files.values()):
        return None
    from pyarrow import parquet

    schema = parquet.read_schema(files["test"][0])
    image = next((column for column in ("img", "image") if column in schema.names), None)
    if image is None or ("fine_label" in schema.names) != (name == "cifar100") or known["label"] not in schema.names:
        return None
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    names = {kind: tuple(described.get(column, {}).get("names", ())) for kind, column in known.items()}
    if names["label"] and set(names["label"]) != set(DATASETS[name].label_names):
        return None  # another set, whose labels are called alike
    images, labels = {}, {}
    for split in SPLITS:
        table = parquet.ParquetDataset(files[split]).read()
        images[split] = np.stack([_decoded(cell["bytes"]) for cell in table[image].to_pylist()])
        labels[split] = {
            kind: table[column].to_numpy().astype(np.int32) for kind, column in known.items() if column in schema.names
        }
    return _completed(name, Original(path, images, labels, names))


def _npz(name: str, path: Path) -> Original | None:
    if path.suffix != ".npz" or not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        if missing := {"x_train", "y_train", "x_test", "y_test"} - set(arrays):
            raise UserError(f"{path}: {', '.join(sorted(missing))} not found, only {', '.join(arrays)}")
        images = {split: arrays[f"x_{split}"] for split in SPLITS}
        labels = {split: {"label": arrays[f"y_{split}"].reshape(-1).astype(np.int32)} for split in SPLITS}
    if labels["train"]["label"].max() + 1 != DATASETS[name].num_classes:
        return None
    return _completed(name, Original(path, images, labels, {}))


def _completed(name: str, original: Original) -> Original:
    """The set with the names and coarse labels that its form may leave out, from what is known of CIFAR."""
    info = DATASETS[name]
    names = {kind: given for kind, given in original.names.items() if given}
    names.setdefault("label", info.label_names)
    if info.superclasses:
        names.setdefault("coarse_label", tuple(info.superclasses))
        coarse = np.array(info.superclass_of, np.int32)
        for labels in original.labels.values():
            labels.setdefault("coarse_label", coarse[labels["label"]])
    return dataclasses.replace(original, names=names)


def _check(name: str, original: Original) -> None:
    """Refuses what cannot be the set. Raises UserError."""
    for split in SPLITS:
        cifar.check_arrays(original.where, name, split, original.images[split], original.labels[split]["label"])
    if len(original.names["label"]) != DATASETS[name].num_classes:
        expected = DATASETS[name].num_classes
        raise UserError(f"{original.where}: found {len(original.names['label'])} class names; expected {expected}")


def _pixels(name: str, rows: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] of rows of pixels that are stored channel by channel."""
    height, width, channels = DATASETS[name].image_shape
    return np.ascontiguousarray(rows.reshape(-1, channels, height, width).transpose(0, 2, 3, 1))


def _decoded(content: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


class _Array:
    """What stands in a pickle for an array: its shape and bytes, taken as they are, and of nothing else any notice."""

    def __init__(self, *_: Any):
        self.shape, self.content = (0,), b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) == 5:
            self.shape, self.content = state[1], state[4]


def _latin(text: str, _: str = "") -> bytes:
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Reads plain data and arrays of bytes; whatever else a pickle calls for is refused, and nothing of it is run."""

    def find_class(self, module: str, name: str) -> Any:
        if re.fullmatch(r"numpy(\._?core\.multiarray)?", module) and name in ("_reconstruct", "ndarray", "dtype"):
            return _Array
        if (module, name) == ("_codecs", "encode"):
            return _latin
        raise UserError(f"calls for {module}.{name}, which no file of CIFAR does; it is not executed")


def _unpickled(content: bytes) -> Mapping[str, Any]:
    """The dictionary in a pickle, its arrays as uint8."""
    tree = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    entries = {_text(key): value for key, value in tree.items()}
    arrays = {key: value for key, value in entries.items() if isinstance(value, _Array)}
    return entries | {key: np.frombuffer(array.content, np.uint8).reshape(array.shape) for key, array in arrays.items()}
