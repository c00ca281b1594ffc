"""Data sets as arrays in memory: CIFAR through TFDS, or drawn by code; the hold-out; the order of an epoch.

CIFAR is read from a folder that TFDS prepared in its array_record format, the one it can read without TensorFlow.
`prepare` makes such a folder from the original binary archive, again without TensorFlow. A folder prepared by TFDS
itself (`file_format='array_record'`) serves as well and has the same order of records.

Decoding 60,000 PNG images takes a while, so the arrays are kept in a cache file named after the content of the record
files: a folder that changes is read again, and one that is copied is not.
"""

import contextlib
import dataclasses
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import types
import urllib.error
import urllib.request
import zlib
from concurrent import futures
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from wrn_jax import embedded
from wrn_jax.config import Data
from wrn_jax.errors import UserError

IMAGE_SHAPE = (32, 32, 3)
SPLITS = ("train", "test")
# Records of each split; a folder or archive with another number is refused.
NUM_EXAMPLES = {
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
}
CONNECT_TIMEOUT = 15  # seconds without an answer before a download is given up
MAX_NAMES_BYTES = 1 << 16  # a list of class names in an archive is never longer


@dataclasses.dataclass(frozen=True)
class _Cifar:
    """What differs between the two CIFAR sets.

    size and sha256 are those of the original archive, as TFDS has them on record too; label_files gives each label's
    file of names and number of classes, in the order in which the labels stand in a record.
    """

    num_classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    url: str
    size: int
    sha256: str
    folder: str
    files: dict[str, tuple[str, ...]]
    label_files: dict[str, tuple[str, int]]


# Mean and standard deviation per channel of the training images in 0..1, as commonly published.
CIFAR = {
    "cifar10": _Cifar(
        num_classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        size=170_052_171,
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        folder="cifar-10-batches-bin",
        files={"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        label_files={"label": ("batches.meta.txt", 10)},
    ),
    "cifar100": _Cifar(
        num_classes=100,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2761),
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        size=168_513_733,
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        folder="cifar-100-binary",
        files={"train": ("train.bin",), "test": ("test.bin",)},
        label_files={"coarse_label": ("coarse_label_names.txt", 20), "label": ("fine_label_names.txt", 100)},
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """images: [N, 32, 32, 3] uint8; labels: [N] int32."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory; mean and std are per channel, for pixels in 0..1; valid is None without a hold-out."""

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    train: Split
    valid: Split | None
    test: Split


def load(data: Data) -> Dataset:
    """Loads the data set that a configuration asks for.

    Args:
      data: which set, where it lies, whether it may be prepared, where decoded arrays are kept, and the hold-out.

    Returns:
      A `Dataset`. `valid` holds validation_size training examples, equally many of each class, chosen by
      validation_seed alone; the rest of the training set keeps its order.

    Raises:
      UserError: the data is absent, damaged or not what it should be, or the hold-out cannot be made.
    """
    if data.name == "embedded":
        names, mean, std = embedded.CLASS_NAMES, embedded.MEAN, embedded.STD
        try:
            train, test = embedded.draw(data.embedded_train, data.embedded_test, data.embedded_seed)
        except ValueError as error:
            raise UserError(f"data.embedded_train, data.embedded_test, data.embedded_seed: {error}") from error
        splits = {"train": Split(*train), "test": Split(*test)}
    else:
        cifar = _cifar(data.name)
        mean, std = cifar.mean, cifar.std
        folder = _find_or_prepare(data)
        splits, names = _read_cached(data.name, folder, _cache_folder(data.cache))
    train, valid = hold_out(splits["train"], data.validation_size, data.validation_seed, len(names))
    return Dataset(data.name, len(names), names, mean, std, train, valid, splits["test"])


def planned_sizes(data: Data) -> tuple[int, int]:
    """(training images after the hold-out, classes) of the data set that `data` describes, without reading it.

    Raises:
      UserError: the hold-out cannot be made.
    """
    if data.name == "embedded":
        num_train, num_classes = data.embedded_train, len(embedded.CLASS_NAMES)
    else:
        num_train, num_classes = NUM_EXAMPLES[data.name]["train"], CIFAR[data.name].num_classes
    _check_hold_out(data.validation_size, num_train // num_classes, num_classes)
    return num_train - data.validation_size, num_classes


def hold_out(split: Split, size: int, seed: int, num_classes: int) -> tuple[Split, Split | None]:
    """Takes `size` examples out of a split, size / num_classes of every class.

    Which ones depends on the seed and the split alone, and a larger hold-out contains a smaller one.

    Returns:
      (rest, held), both in the order of the split; (split itself, None) for size 0.

    Raises:
      UserError: seed or size is negative, or size is not divisible by num_classes, or leaves a class without training
        examples.
    """
    if size == 0:
        return split, None
    if seed < 0:
        raise UserError(f"data.validation_seed: found {seed}; expected 0 or more")
    _check_hold_out(size, int(np.bincount(split.labels, minlength=num_classes).min()), num_classes)
    # One random number per example; raw generator output is the part of numpy that never changes between versions.
    rank = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(len(split.labels))
    held = np.zeros(len(split.labels), bool)
    for label in range(num_classes):
        members = np.flatnonzero(split.labels == label)
        held[members[np.argsort(rank[members], kind="stable")[: size // num_classes]]] = True
    return Split(split.images[~held], split.labels[~held]), Split(split.images[held], split.labels[held])


def _check_hold_out(size, smallest, num_classes):
    """Raises UserError unless `size` is a fair hold-out of classes of at least `smallest` examples each."""
    if size < 0 or size % num_classes or (size and size // num_classes >= smallest):
        raise UserError(
            f"data.validation_size: {size} was asked for; expected 0 or a multiple of {num_classes} (the number of "
            f"classes) of at most {max(smallest - 1, 0) * num_classes}, so that every class keeps a training example"
        )


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Number of batches that show every example at least once: ceil(num_examples / batch_size)."""
    return -(-num_examples // batch_size)


def epoch_order(key: jax.Array, epoch: int | jax.Array, num_examples: int, batch_size: int) -> jax.Array:
    """Which example stands where in an epoch.

    A permutation of all examples; the last batch is filled by starting over at the beginning of the same permutation,
    several times if the batch is larger than the set.

    Args:
      key: jax.random key of the data order, the same for the whole run.
      epoch: int or traced int32, counted from 1.
      num_examples, batch_size: Python ints (they set the shape).

    Returns:
      [steps_per_epoch, batch_size] int32, a function of key and epoch only.
    """
    steps = steps_per_epoch(num_examples, batch_size)
    order = jax.random.permutation(jax.random.fold_in(key, epoch), num_examples).astype(jnp.int32)
    return jnp.resize(order, (steps, batch_size))  # fills up by repeating the permutation


def resolve_directory(directory: str | os.PathLike | None) -> Path:
    """The TFDS data folder as an absolute path: `directory`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
      UserError: it is an address such as gs://bucket, which only TensorFlow can read.
    """
    directory = os.fspath(directory or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    if "://" in directory:
        raise UserError(f"{directory}: a remote data folder cannot be read; expected a local folder (copy it first)")
    return Path(directory).expanduser().absolute()


def prepare(
    name: str,
    data_dir: str | os.PathLike | None,
    archive: str | os.PathLike | None = None,
    download: bool = False,
) -> Path:
    """Makes the TFDS folder of a CIFAR set from its original binary archive, without TensorFlow.

    The folder is built under a temporary name beside its final place and renamed when it is complete, so an interrupted
    preparation leaves nothing that looks whole. A folder that is already there is checked and left as it is.

    Args:
      name: 'cifar100' or 'cifar10'.
      data_dir: TFDS data folder to write to; None: see `resolve_directory`.
      archive: path of cifar-100-binary.tar.gz or cifar-10-binary.tar.gz.
      download: whether to fetch the archive when none is given.

    Returns:
      Path of the prepared folder, <data_dir>/<name>/<version>.

    Raises:
      UserError: no archive, or it cannot be fetched, is damaged or is not the expected one; the folder cannot be
        written; or what stands there already is not whole.
    """
    cifar, data_dir = _cifar(name), resolve_directory(data_dir)
    existing = _version_folder(data_dir, name)
    if existing:
        _verify(name, existing)
        _say(f"{existing} was prepared already")
        return existing
    if archive is None and not download:
        raise UserError(
            f"{name} is not prepared at {data_dir / name} and neither an archive nor leave to download was "
            f"given; expected --archive {Path(cifar.url).name} or --download"
        )
    import tensorflow_datasets as tfds

    final = data_dir / name / str(tfds.builder_cls(name).VERSION)
    try:
        if final.exists():
            raise UserError(
                f"{final}: something unfinished is in the way; expected no such folder (remove or rename it)"
            )
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=data_dir) as scratch:
            scratch = Path(scratch)
            if archive is None:
                archive = scratch / Path(cifar.url).name
                _download(cifar, archive)
            _extract(name, Path(archive).expanduser(), scratch)
            built = _build(name, scratch, scratch / "tfds")
            _verify(name, built)  # TFDS accepts any number of records and does not look at the images
            final.parent.mkdir(exist_ok=True)
            try:
                built.rename(final)
            except OSError:
                # Another process may have been faster; then its folder is as good as ours.
                if not _version_folder(data_dir, name):
                    raise
    except OSError as error:
        raise UserError(
            f"{error.filename or data_dir}: cannot prepare {name} there ({_reason(error)}); expected a "
            "folder with the right and the room to write"
        ) from error
    return final


def _cifar(name):
    if name not in CIFAR:
        raise UserError(f"data.name: found {name!r}; expected one of cifar100, cifar10, embedded")
    return CIFAR[name]


def _find_or_prepare(data):
    """The prepared folder of the configuration's set, made first where it is absent and may be made."""
    directory = resolve_directory(data.directory)
    folder = _version_folder(directory, data.name)
    if folder:
        return folder
    if data.archive:
        return prepare(data.name, directory, data.archive)
    trouble = ""
    if data.download:
        try:
            return prepare(data.name, directory, download=True)
        except UserError as error:
            trouble = f" and was not prepared ({error})"
    raise UserError(
        f"{data.name} was not found at {directory / data.name}{trouble}; set TFDS_DATA_DIR or --config.data.directory "
        f"to a folder prepared by TFDS as array_record, or run `python -m wrn_jax.prepare --name {data.name} --archive "
        f"FILE` with a copy of {Path(CIFAR[data.name].url).name}, or use --config.data.name=embedded"
    )


def _version_folder(directory, name):
    """The newest prepared version of a set below a TFDS data folder, or None."""
    root = directory / name
    try:
        versions = [entry for entry in os.listdir(root) if re.fullmatch(r"\d+\.\d+\.\d+", entry)]
        versions = [entry for entry in versions if "dataset_info.json" in os.listdir(root / entry)]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"{error.filename or root}: cannot be listed ({_reason(error)}); expected a readable folder "
            f"holding {name} as prepared by TFDS"
        ) from error
    if not versions:
        return None
    return root / max(versions, key=lambda version: tuple(map(int, version.split("."))))


def _read_text(path):
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({_reason(error)}); expected a text file written by TFDS") from error


def _inspect(name, folder):
    """Checks what a prepared folder says of itself: (class names, {split: its record files})."""
    num_classes = CIFAR[name].num_classes
    path = folder / "dataset_info.json"
    text = _read_text(path)
    try:
        info = json.loads(text)
        file_format = info.get("fileFormat", "tfrecord")
        lengths = {split["name"]: [int(length) for length in split["shardLengths"]] for split in info["splits"]}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: is damaged ({_reason(error)}); expected the description TFDS writes") from error
    if file_format != "array_record":
        raise UserError(
            f"{folder}: is in the format {file_format}, which only TensorFlow can read; expected "
            f"array_record (run `python -m wrn_jax.prepare --name {name} --data-dir DIR` for another DIR)"
        )
    files = {}
    for split in SPLITS:
        if split not in lengths:
            raise UserError(f"{path}: split {split!r} is missing, found {sorted(lengths)}; expected train and test")
        found, expected = sum(lengths[split]), NUM_EXAMPLES[name][split]
        if found != expected:
            raise UserError(f"{path}: split {split!r} has {found} records; expected {expected}")
        shards = len(lengths[split])
        files[split] = [folder / f"{name}-{split}.array_record-{i:05d}-of-{shards:05d}" for i in range(shards)]
    path = folder / "label.labels.txt"
    names = tuple(line for line in _read_text(path).splitlines() if line)
    if len(names) != num_classes:
        raise UserError(f"{path}: found {len(names)} class names; expected {num_classes}")
    return names, files


def _verify(name, folder):
    """Reads a prepared folder once."""
    for split, files in _inspect(name, folder)[1].items():
        _read_records(name, folder, split, files)


def _check_arrays(where, name, split, images, labels):
    """Refuses arrays that cannot be the split: number, shape, type, label range, equal class frequencies."""
    num_examples, num_classes = NUM_EXAMPLES[name][split], CIFAR[name].num_classes
    found = (images.shape, str(images.dtype), labels.shape, str(labels.dtype))
    expected = ((num_examples, *IMAGE_SHAPE), "uint8", (num_examples,), "int32")
    if found != expected:
        raise UserError(
            f"{where}: split {split!r} holds images {found[0]} {found[1]} with labels {found[2]} "
            f"{found[3]}; expected {expected[0]} {expected[1]} with {expected[2]} {expected[3]}"
        )
    _check_labels(where, labels, num_classes)


def _check_labels(where, labels, num_classes):
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"{where}: found labels from {labels.min()} to {labels.max()}; expected 0 to {num_classes - 1}")
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() != counts.max():
        raise UserError(
            f"{where}: found between {counts.min()} and {counts.max()} records of a class; expected "
            f"{len(labels) / num_classes:g} of each"
        )


def _cache_folder(cache):
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache or f"{base}/wrn_jax").expanduser().absolute()


def _read_cached(name, folder, cache):
    """Arrays of a prepared folder from the cache, else from the records: ({split: Split}, class names)."""
    names, files = _inspect(name, folder)
    path = cache / f"{name}-{folder.name}-{_fingerprint(folder, files)}.npz"
    splits = _read_cache(name, path)
    if splits is None:
        splits = {split: _read_records(name, folder, split, files[split]) for split in SPLITS}
        _write_cache(path, splits)
    return splits, names


def _fingerprint(folder, files):
    """Digest of the content of the record files and their description; also finds what cannot be read."""
    digest = hashlib.sha256()
    for path in (folder / "dataset_info.json", folder / "features.json", *files["train"], *files["test"]):
        try:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({_reason(error)}); expected a file written by TFDS") from error
    return digest.hexdigest()[:16]


def _read_cache(name, path):
    """The splits in a cache file, or None where there is none or it is of no use."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            splits = {split: Split(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in SPLITS}
        for split, content in splits.items():
            _check_arrays(path, name, split, content.images, content.labels)
    except FileNotFoundError:
        return None
    except Exception as error:  # A few flipped bits raise almost anything; whatever it is, the records are still there.
        _say(f"{path}: the cached arrays are unusable ({_reason(error)}); reading the records again")
        return None
    return splits


def _write_cache(path, splits):
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
        _say(f"warning: {path}: cannot write the cache ({_reason(error)}); the images will be decoded again next time")
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _read_records(name, folder, split, files):
    """Reads and decodes all records of a split."""
    import tensorflow_datasets as tfds
    from PIL import Image

    where = ", ".join(map(str, files))
    images = np.empty((NUM_EXAMPLES[name][split], *IMAGE_SHAPE), np.uint8)
    labels = np.empty(len(images), np.int32)

    def read(start):
        rows = range(start, min(start + 500, len(images)))
        for row, record in zip(rows, source.__getitems__(list(rows)), strict=True):
            with Image.open(io.BytesIO(record["image"])) as image:
                pixels = np.asarray(image)
            if pixels.shape != IMAGE_SHAPE or pixels.dtype != np.uint8:
                raise UserError(
                    f"{where}: record {row} is an image of {pixels.shape} {pixels.dtype}; expected {IMAGE_SHAPE} uint8"
                )
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
            _progress(len(images), f"decoding {name} {split}", " images") as advance,
            futures.ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
        ):
            for count in pool.map(read, range(0, len(images), 500)):
                advance(count)
    except UserError:
        raise
    except Exception as error:  # Readers in C++, protobuf and Pillow each have their own; all mean the same here.
        raise UserError(
            f"{where}: cannot be read ({_reason(error)}); expected {len(images)} records of {name} {split} "
            "as TFDS writes them"
        ) from error
    _check_arrays(where, name, split, images, labels)
    return Split(images, labels)


def _download(cifar, path):
    """Fetches the original archive to `path` and checks that it is that."""
    digest, received = hashlib.sha256(), 0
    try:
        with (
            urllib.request.urlopen(cifar.url, timeout=CONNECT_TIMEOUT) as response,
            open(path, "wb") as file,
            _progress(cifar.size, f"downloading {cifar.url}", "B") as advance,
        ):
            while block := response.read(1 << 20):
                file.write(block)
                digest.update(block)
                received += len(block)
                advance(len(block))
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # this one holds the connection open
        raise UserError(f"{cifar.url}: the download failed ({_reason(error)}); expected an archive") from error
    if (received, digest.hexdigest()) != (cifar.size, cifar.sha256):
        raise UserError(
            f"{cifar.url}: received {received} bytes with SHA-256 {digest.hexdigest()}; expected {cifar.size} bytes "
            f"with {cifar.sha256}"
        )


def _extract(name, archive, folder):
    """Copies the files that are needed out of an archive into `folder`.

    Only regular files with an expected name and size are taken, and written under names of our own, so nothing else in
    an archive (links, other paths, modes) has any effect.
    """
    cifar = CIFAR[name]
    sizes = {
        file: NUM_EXAMPLES[name][split] // len(files) * _record_bytes(cifar)
        for split, files in cifar.files.items()
        for file in files
    }
    sizes |= {file: None for file, _ in cifar.label_files.values()}
    missing = {f"{cifar.folder}/{file}": size for file, size in sizes.items()}
    hint = f"expected a copy of {Path(cifar.url).name}"
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name.removeprefix("./") not in missing:
                    continue
                size = missing.pop(member.name.removeprefix("./"))
                if not member.isreg() or (member.size != size if size else member.size > MAX_NAMES_BYTES):
                    kind = "a file" if member.isreg() else "no regular file"
                    raise UserError(
                        f"{archive}: {member.name} is {kind} of {member.size} bytes; expected a file of "
                        f"{size or f'at most {MAX_NAMES_BYTES}'} bytes, as in {Path(cifar.url).name}"
                    )
                with tar.extractfile(member) as source, open(folder / Path(member.name).name, "wb") as target:
                    shutil.copyfileobj(source, target)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{archive}: cannot be unpacked ({_reason(error)}); {hint}") from error
    if missing:
        raise UserError(f"{archive}: {', '.join(missing)} not found in it; {hint}")


def _record_bytes(cifar):
    return len(cifar.label_files) + int(np.prod(IMAGE_SHAPE))


def _build(name, extracted, data_dir):
    """Runs TFDS's own builder over extracted files and returns the folder it wrote.

    The stock builder needs TensorFlow to open the binary files and to encode pixels as PNG. Only those steps are
    replaced, on this one builder object; names, keys and with them the shuffled order of records are TFDS's.
    """
    import tensorflow_datasets as tfds

    cifar = CIFAR[name]
    builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")

    def split_generators(dl_manager):
        del dl_manager
        for key, (file, count) in cifar.label_files.items():
            names = [line for line in _read_text(extracted / file).split("\n") if line]
            if len(names) != count:
                raise UserError(f"{name} archive: {file} holds {len(names)} class names; expected {count}")
            builder.info.features[key].names = names
        return {split: _examples(name, split, [extracted / file for file in cifar.files[split]]) for split in SPLITS}

    builder._split_generators = split_generators
    builder._make_download_manager = lambda **_: types.SimpleNamespace(downloaded_size=0)
    tfds.disable_progress_bar()  # it reports shards, which says nothing here
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of the temporary folder
            builder.download_and_prepare(file_format="array_record")
    finally:
        tfds.enable_progress_bar()
    return Path(builder.data_dir)


def _examples(name, split, paths):
    """Yields (key, example) as TFDS's builder does, with images as PNG."""
    from PIL import Image

    cifar = CIFAR[name]
    keys = list(cifar.label_files)
    records = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, _record_bytes(cifar)) for path in paths])
    _check_labels(f"{name} archive, {split}", records[:, keys.index("label")], cifar.num_classes)
    with _progress(len(records), f"preparing {name} {split}", " images") as advance:
        for index, record in enumerate(records):
            pixels = record[len(keys) :].reshape(3, 32, 32).transpose(1, 2, 0)  # stored channel by channel
            png = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(pixels)).save(png, "PNG")
            png.seek(0)
            labels = {key: int(label) for key, label in zip(keys, record, strict=False)}
            yield index, {"id": f"{split}_{index:05d}", "image": png, **labels}
            advance(1)


def _say(text):
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _progress(total, what, unit):
    """Yields a function that counts progress: a bar on a terminal, one line elsewhere."""
    if not sys.stderr.isatty():
        _say(what)
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(total=total or None, desc=what, unit=unit, unit_scale=True, file=sys.stderr) as bar:
        yield bar.update


def _reason(error):
    """An exception in part of a line."""
    if type(error) is urllib.error.URLError:
        error = error.reason  # what it wraps, without the angle brackets
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]
