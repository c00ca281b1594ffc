"""A data set of one's own, "own": a `.npz` file, or a folder of image files in a folder for each class.

What the network and the plan need to know of it (class names and numbers of images) is read once and becomes part of the
configuration, so that a run says what it was trained on and is evaluated without the files at hand.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wrn_jax.config import Config, apply_arguments, load_file
from wrn_jax.config.datasets import DATASETS
from wrn_jax.data.cifar import SPLITS, Split
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import reason, user_path

SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".bmp", ".dib", ".gif", ".webp", ".avif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico",
)  # fmt: skip
TEST_FOLDERS = ("test", "val", "valid", "validation")


def read_config(path_or_name: str | Path, overrides: Sequence[str]) -> Config:
    """The configuration in a file, changed by arguments `--config.KEY=VALUE`, and `described`. Raises UserError."""
    return described(apply_arguments(load_file(path_or_name), overrides))


def described(config: Config) -> Config:
    """`config`, with what its own data set holds; unchanged with another data set, or where it says so already.

    Raises:
      UserError: there are no such data, or their labels are not what they should be; the images are looked at by `read`.
    """
    if not DATASETS[config.data.name].own or config.data.class_names:
        return config
    with _opened(config.data.directory) as own:  # of the images only how many there are
        sizes = {f"data.own_{split}": len(own.labels[split]) for split in SPLITS}
        names = own.names
    return config.override({"data.class_names": list(names), **sizes}, str(config.data.directory))


def read(directory: str | Path | None) -> tuple[dict[str, Split], tuple[str, ...]]:
    """({split: Split}, class names) of a `.npz` file or a folder.

    A file holds x_train, y_train, x_test, y_test and, if it likes, class_names. A folder holds train/CLASS/IMAGE and
    test/CLASS/IMAGE; labels are the places of the classes in alphabetical order, images come in the order of their names,
    and become RGB as the pictures do that are predicted, see `pictures.as_rgb`.

    Raises:
      UserError: there is nothing of the kind, or an image has another size, or the labels do not fit.
    """
    with _opened(directory) as own:
        splits = {}
        for split in SPLITS:
            images = own.images(split)
            _check_images(own.place, split, images, len(own.labels[split]))
            splits[split] = Split(images, own.labels[split].astype(np.int32))
        return splits, own.names


@dataclasses.dataclass(frozen=True, eq=False)
class _Own:
    """A set of one's own: its place, labels by split, class names, and what reads the images of a split."""

    place: Path
    labels: Mapping[str, np.ndarray]
    names: tuple[str, ...]
    images: Callable[[str], np.ndarray]


@contextlib.contextmanager
def _opened(directory: str | Path | None) -> Generator[_Own]:
    """The set there, its labels checked. Raises UserError, in the block too."""
    if directory is None:
        raise UserError("data.directory: should name the .npz file or the folder of the data set 'own'")
    place = user_path(directory)
    try:
        with np.load(place, allow_pickle=False) if place.is_file() else contextlib.nullcontext() as content:
            own = _folder(place) if content is None else _npz(place, content)
            for split in SPLITS:
                _check_labels(place, split, own.labels[split], len(own.names))
            yield own
    except UserError:
        raise
    except Exception as error:  # numpy, zipfile and Pillow each have their own; all mean the same here
        raise UserError(f"{place}: cannot be read ({reason(error)})") from None


def _npz(path: Path, content: Any) -> _Own:
    wanted = [f"{kind}_{split}" for kind in "xy" for split in SPLITS]
    if missing := [name for name in wanted if name not in content]:
        raise UserError(f"{path}: {', '.join(missing)} not found, only {', '.join(content) or 'nothing'}")
    labels = {split: np.squeeze(content[f"y_{split}"]) for split in SPLITS}
    top = int(labels["train"].max(initial=0)) if np.issubdtype(labels["train"].dtype, np.integer) else 0
    names = content["class_names"].astype(str) if "class_names" in content else range(top + 1)
    return _Own(path, labels, tuple(map(str, names)), lambda split: content[f"x_{split}"])


def _folder(place: Path) -> _Own:
    tests = [name for name in TEST_FOLDERS if (place / name).is_dir()]
    if len(tests) > 1:
        raise UserError(f"{place}: has {' and '.join(tests)}; leave one of them, which is taken as the test set")
    if not (place / "train").is_dir() or not tests:
        raise UserError(
            f"{place}: holds no images of one's own; expected a .npz file, or a folder with train/CLASS/IMAGE and "
            "test/CLASS/IMAGE"
        )
    folders = {"train": place / "train", "test": place / tests[0]}
    classes = {split: sorted(path.name for path in folder.iterdir() if path.is_dir()) for split, folder in folders.items()}
    if other := sorted(set(classes["train"]) ^ set(classes["test"])):
        raise UserError(f"{place}: class {other[0]!r} is in one of {', '.join(path.name for path in folders.values())} only")
    names = classes["train"]
    files = {
        split: [
            (path, label)
            for label, name in enumerate(names)
            for path in sorted((folder / name).iterdir())
            if path.suffix.lower() in SUFFIXES
        ]
        for split, folder in folders.items()
    }
    labels = {split: np.array([label for _, label in found], np.int32) for split, found in files.items()}
    return _Own(place, labels, tuple(names), lambda split: _images([path for path, _ in files[split]]))


def _images(files: Sequence[Path]) -> np.ndarray:
    from PIL import Image

    from wrn_jax.data.pictures import as_rgb

    height, width, _ = shape = DATASETS["own"].image_shape
    images = np.empty((len(files), *shape), np.uint8)
    for index, path in enumerate(files):
        try:
            with Image.open(path) as image:
                if image.size != (width, height):
                    raise UserError(f"{path}: is {image.width} x {image.height} pixels; resize all to {width} x {height}")
                images[index] = np.asarray(as_rgb(image))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({reason(error)})") from None
    return images


def _check_images(place: Path, split: str, images: np.ndarray, count: int) -> None:
    expected = (count, *DATASETS["own"].image_shape)
    if images.dtype != np.uint8 or images.shape != expected:
        raise UserError(f"{place}: x_{split} is {images.dtype} {list(images.shape)}; expected uint8 {list(expected)}")


def _check_labels(place: Path, split: str, labels: np.ndarray, num_classes: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise UserError(f"{place}: y_{split} is {labels.dtype} {list(labels.shape)}; expected integers, one for each image")
    counts = np.bincount(np.clip(labels, 0, num_classes), minlength=num_classes)
    if labels.min(initial=0) < 0 or len(counts) > num_classes:
        raise UserError(f"{place}: labels of {split} go from {labels.min()} to {labels.max()}; expected 0 to {num_classes - 1}")
    if not counts.all():
        raise UserError(f"{place}: no {split} image of class {int(counts.argmin())}; every class needs some")
