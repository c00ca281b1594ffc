"""A data set of one's own, "own": a `.npz` file, or a folder of image files in a folder for each class.

What the network and the plan need to know of it (class names and numbers of images) is read once and becomes part of the
configuration, so that a run says what it was trained on and is evaluated without the files at hand.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wrn_jax.config import Config, apply_arguments, load_file
from wrn_jax.config.datasets import DATASETS
from wrn_jax.data.cifar import SPLITS, Split
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import reason, user_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")
TEST_FOLDERS = ("test", "val", "valid", "validation")


def read_config(path_or_name: str | Path, overrides: Sequence[str]) -> Config:
    """The configuration in a file, changed by arguments `--config.KEY=VALUE`, and `described`. Raises UserError."""
    return described(apply_arguments(load_file(path_or_name), overrides))


def described(config: Config) -> Config:
    """`config`, with what its own data set holds; unchanged with another data set, or where it says so already.

    Raises:
      UserError: there are no such data, or they are not what they should be.
    """
    if not DATASETS[config.data.name].own or config.data.class_names:
        return config
    splits, names = read(config.data.directory)
    sizes = {f"data.own_{split}": len(splits[split].labels) for split in SPLITS}
    return config.override({"data.class_names": list(names), **sizes}, str(config.data.directory))


def read(directory: str | Path | None) -> tuple[dict[str, Split], tuple[str, ...]]:
    """({split: Split}, class names) of a `.npz` file or a folder.

    A file holds x_train, y_train, x_test, y_test and, if it likes, class_names. A folder holds train/CLASS/IMAGE and
    test/CLASS/IMAGE; labels are the places of the classes in alphabetical order, images come in the order of their names,
    and those with fewer or more channels become RGB.

    Raises:
      UserError: there is nothing of the kind, or an image has another size, or the labels do not fit.
    """
    if directory is None:
        raise UserError("data.directory: should name the .npz file or the folder of the data set 'own'")
    place = user_path(directory)
    try:
        arrays, names = _npz(place) if place.is_file() else _folder(place)
    except UserError:
        raise
    except Exception as error:  # numpy, zipfile and Pillow each have their own; all mean the same here
        raise UserError(f"{place}: cannot be read ({reason(error)})") from None
    for split in SPLITS:
        _check(place, split, *arrays[split], len(names))
    return {split: Split(images, labels.astype(np.int32)) for split, (images, labels) in arrays.items()}, names


def _npz(path: Path) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
    with np.load(path, allow_pickle=False) as content:
        wanted = [f"{kind}_{split}" for kind in "xy" for split in SPLITS]
        if missing := [name for name in wanted if name not in content]:
            raise UserError(f"{path}: {', '.join(missing)} not found, only {', '.join(content) or 'nothing'}")
        arrays = {split: (content[f"x_{split}"], np.squeeze(content[f"y_{split}"])) for split in SPLITS}
        top = int(arrays["train"][1].max(initial=0)) if np.issubdtype(arrays["train"][1].dtype, np.integer) else 0
        names = [str(name) for name in content["class_names"]] if "class_names" in content else None
    return arrays, tuple(names or map(str, range(top + 1)))


def _folder(place: Path) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], tuple[str, ...]]:
    tests = [name for name in TEST_FOLDERS if (place / name).is_dir()]
    if not (place / "train").is_dir() or len(tests) != 1:
        raise UserError(
            f"{place}: holds no images of one's own; expected a .npz file, or a folder with train/CLASS/IMAGE and "
            "test/CLASS/IMAGE"
        )
    folders = {"train": place / "train", "test": place / tests[0]}
    classes = {split: sorted(path.name for path in folder.iterdir() if path.is_dir()) for split, folder in folders.items()}
    if other := sorted(set(classes["train"]) ^ set(classes["test"])):
        raise UserError(f"{place}: class {other[0]!r} is in one of {', '.join(path.name for path in folders.values())} only")
    names = classes["train"]
    return {split: _images(folder, names) for split, folder in folders.items()}, tuple(names)


def _images(folder: Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    files = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    height, width, _ = shape = DATASETS["own"].image_shape
    images = np.empty((len(files), *shape), np.uint8)
    for index, (path, _) in enumerate(files):
        try:
            with Image.open(path) as image:
                if image.size != (width, height):
                    raise UserError(f"{path}: is {image.width} x {image.height} pixels; resize all to {width} x {height}")
                images[index] = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({reason(error)})") from None
    return images, np.array([label for _, label in files], np.int32)


def _check(place: Path, split: str, images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    shape = DATASETS["own"].image_shape
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise UserError(f"{place}: x_{split} is {images.dtype} {list(images.shape)}; expected uint8 [N, {expected}]")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(images),):
        raise UserError(f"{place}: y_{split} is {labels.dtype} {list(labels.shape)}; expected integers [{len(images)}]")
    counts = np.bincount(np.clip(labels, 0, num_classes), minlength=num_classes)
    if labels.min(initial=0) < 0 or len(counts) > num_classes:
        raise UserError(f"{place}: labels of {split} go from {labels.min()} to {labels.max()}; expected 0 to {num_classes - 1}")
    if not counts.all():
        raise UserError(f"{place}: no {split} image of class {int(counts.argmin())}; every class needs some")
