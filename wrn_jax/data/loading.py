"""Data sets as arrays in memory: CIFAR or one drawn by code; the hold-out; the order of an epoch."""

import dataclasses
import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from wrn_jax.config import Data, datasets
from wrn_jax.config.datasets import steps_per_epoch
from wrn_jax.data import cifar, drawn_shapes, forms, own_classes, preparation
from wrn_jax.data.cifar import Split
from wrn_jax.runtime import console
from wrn_jax.runtime.errors import UserError


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
    info = datasets.info(data)
    splits, names = _read(data)
    train, valid = hold_out(splits["train"], data.validation_size, data.validation_seed, len(names))
    return Dataset(data.name, len(names), names, info.mean, info.std, train, valid, splits["test"])


def digests(dataset: Dataset) -> dict[str, str]:
    """A digest of the images and labels of each split, in their order; other images, or the same in another order, have
    another one."""
    found = {}
    for name in ("train", "valid", "test"):
        if (split := getattr(dataset, name)) is not None:
            digest = hashlib.sha256(np.ascontiguousarray(split.images).data)
            digest.update(np.ascontiguousarray(split.labels, "<i4").data)
            found[name] = digest.hexdigest()[:16]
    return found


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
    datasets.check_hold_out(size, int(np.bincount(split.labels, minlength=num_classes).min()), num_classes)
    # One random number per example; raw generator output is the part of numpy that never changes between versions.
    rank = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(len(split.labels))
    held = np.zeros(len(split.labels), bool)
    for label in range(num_classes):
        members = np.flatnonzero(split.labels == label)
        held[members[np.argsort(rank[members], kind="stable")[: size // num_classes]]] = True
    return Split(split.images[~held], split.labels[~held]), Split(split.images[held], split.labels[held])


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


def _read(data: Data) -> tuple[dict[str, Split], tuple[str, ...]]:
    """({split: Split}, class names): the one place where a data set gets its loader."""
    info = datasets.info(data)
    if info.own:
        splits, names = own_classes.read(data.directory)
        found = (names, *(len(splits[split].labels) for split in cifar.SPLITS))
        if found != (info.class_names, info.num_train, info.num_test):
            raise UserError(f"{data.directory}: holds other classes or numbers of images than the configuration says")
        return splits, names
    if not info.drawn:
        found = _find_or_prepare(data)
        return (
            forms.in_tfds_order(found) if isinstance(found, forms.Original) else cifar.read_cached(data.name, found, data.cache)
        )
    try:
        train, test = drawn_shapes.draw(data.embedded_train, data.embedded_test, data.embedded_seed)
    except ValueError as error:
        raise UserError(f"data.embedded_train, data.embedded_test, data.embedded_seed: {error}") from error
    return {"train": Split(*train), "test": Split(*test)}, info.class_names or ()


def _find_or_prepare(data: Data) -> Path | forms.Original:
    """The configuration's set: its prepared folder, or what stands there in another form, else a folder made now."""
    directory = cifar.resolve_directory(data.directory)
    folder = None if directory.is_file() else cifar.find_version(directory, data.name)
    if folder:
        return folder
    archive = forms.ARCHIVES.get(data.name)
    if archive is None:
        raise UserError(
            f"{data.name} was not found at {directory / data.name}; set TFDS_DATA_DIR or --config.data.directory to a folder "
            "prepared by TFDS as array_record"
        )
    packed = directory / Path(archive.url).name
    if data.archive or packed.is_file():
        return preparation.prepare(data.name, directory, data.archive or packed)
    if original := forms.read(data.name, directory):
        console.tell(f"reading {data.name} from {original.where}")
        return original
    trouble = forms.what_else(directory)
    if data.download:
        try:
            return preparation.prepare(data.name, directory, download=True)
        except UserError as error:
            trouble += f" and was not prepared ({error})"
    raise UserError(
        f"{data.name} was not found at {directory / data.name}{trouble}; set TFDS_DATA_DIR or --config.data.directory "
        f"to a folder that holds it (see docs/data.md for the forms), or run `python -m wrn_jax.prepare --name {data.name} "
        f"--archive FILE` with any copy of it, such as {Path(archive.url).name}, or use --config.data.name=embedded"
    )
