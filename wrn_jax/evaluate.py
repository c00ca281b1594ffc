"""Evaluates a checkpoint: `python -m wrn_jax.evaluate --workdir DIR --checkpoint best`.

Beside what it prints, it leaves in the run, or in `--out DIR`,
  evaluations/step-STEP.json   all figures, and what they were computed by, on and from,
  evaluations/step-STEP.npz    for every test and held-out image, in the order of the data set, the prediction, its
                               probability and that of the right label: enough to compare runs without their models.
Nothing else in the run is touched.
"""

import argparse
import hashlib
import io
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wrn_jax import command
from wrn_jax import config as configs
from wrn_jax.config.datasets import DATASETS
from wrn_jax.data import cifar
from wrn_jax.data.corruptions import SEVERITIES
from wrn_jax.data.loading import Dataset
from wrn_jax.evaluation import evaluator, metrics
from wrn_jax.evaluation.evaluator import IN_BENCHMARK
from wrn_jax.models import weight_layouts
from wrn_jax.runtime import allocator, console, devices, environment, files
from wrn_jax.runtime.errors import UserError
from wrn_jax.training import loop
from wrn_jax.training.checkpoints import Checkpoints, best_of, choose
from wrn_jax.training.workdir import saved_config

FORMAT = 1
"""Version of the files."""

DRAWN = "drawn"
"""The value of `--corruptions` that asks for corruptions made here."""


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluates what the arguments name, prints a summary and writes the figures. Raises UserError."""
    parser = command.parser(
        "evaluate",
        "Evaluates checkpoints of a run, or a file of weights, on the test images.\n"
        "--config.KEY=VALUE changes a key of the run's configuration, such as eval_batch_size, precision, data.directory.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--workdir", type=Path, metavar="DIR", help="the directory of the run")
    source.add_argument("--weights", type=Path, metavar="FILE", help=".safetensors or PyTorch .pth, instead of a run")
    parser.add_argument(
        "--checkpoint",
        default="best",
        metavar="WHICH",
        help="best (default), last, the number of an epoch that was kept, or all that were, one after the other",
    )
    parser.add_argument("--no-train", dest="train", action="store_false", help="leave out the training images")
    parser.add_argument("--save-train", action="store_true", help="write the predictions on training images too")
    parser.add_argument("--flip", action="store_true", help="also average the outputs for each image and its mirror image")
    parser.add_argument(
        "--corruptions",
        nargs="?",
        const="",
        metavar="DIR",
        help="also evaluate corrupted test images: those of CIFAR-100-C in DIR; without DIR those of CIFAR-100-C in the data "
        f"directory, or, where it is not there, drawn ones; DIR = {DRAWN} draws in any case",
    )
    parser.add_argument("--corruption-images", type=int, metavar="N", help="only the first N of the corrupted images")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the files go (default: evaluations/ in the run)")
    options, overrides = command.parse(parser, argv)
    if options.corruption_images is not None and options.corruptions is None:
        raise UserError("--corruption-images goes with --corruptions")
    if options.weights:
        evaluate_weights(options, overrides)
    else:
        evaluate_run(options, overrides)


def evaluate_run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Evaluates checkpoints of a run. Raises UserError."""
    own = saved_config(options.workdir)
    config = configs.apply_arguments(own, overrides)
    check_same_images(own.data, config.data)
    folder = options.workdir / "checkpoints"
    if not folder.is_dir():
        raise UserError(f"{options.workdir}: holds no checkpoints")
    damaged = []
    with Checkpoints(folder) as checkpoints:
        saved = checkpoints.all()
        chosen = saved if options.checkpoint == "all" and saved else [choose(saved, options.checkpoint, folder, "all")]
        out = make_directory(options.out or options.workdir / "evaluations")
        # All devices that are here, whatever the run had: every image counts once on any number of them.
        setup = loop.set_up(config, devices.make_mesh())
        corrupted = corrupted_images(options, setup.dataset, config.data)
        judge = "test" if setup.dataset.valid is None else "valid"
        network, where = setup.network, devices.replicated(setup.mesh)
        for one in chosen:
            try:
                weights = checkpoints.restore_model(one.step, network.params, network.batch_stats, where)
            except UserError as error:
                if len(chosen) == 1:
                    raise
                damaged.append(str(error))
                continue
            flattered = judge == "test" and one == best_of(saved)
            title = f"{options.workdir} after epoch {one.epoch}, step {one.step}"
            figures, arrays = examine(setup, weights, options, corrupted, title, flattered)
            chosen_as = [name for name, which in (("best", best_of(saved)), ("last", saved[-1])) if which == one]
            head = {"step": one.step, "epoch": one.epoch, "chosen_as": chosen_as, "judge": judge}
            write(out, f"step-{one.step}", head | figures, arrays)
    if damaged:
        raise UserError("; ".join(damaged))


def evaluate_weights(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Evaluates a file of weights. Raises UserError."""
    file = str(options.weights)
    weights = weight_layouts.from_torch(weight_layouts.read_weights(options.weights), file)
    sizes = {f"model.{name}": getattr(weights, name) for name in ("depth", "widen_factor", "num_classes")}
    # The published models were trained on all training images; of another hold-out the file says nothing.
    own = configs.Config().override(sizes | {"data.validation_size": 0}, file)
    config = configs.apply_arguments(own, overrides)
    if config.model != own.model:
        raise UserError("--config.model: depth, width and number of classes are those of the weights")
    out = make_directory(options.out) if options.out else None
    setup = loop.set_up(config, devices.make_mesh())
    if weights.num_classes < setup.dataset.num_classes:
        raise UserError(
            f"{file}: has {weights.num_classes} outputs, and {config.data.name} {setup.dataset.num_classes} classes; "
            "--config.data.name chooses the data set"
        )
    corrupted = corrupted_images(options, setup.dataset, config.data)
    placed = devices.replicate((weights.params, weights.batch_stats), setup.mesh)
    title = f"{file}, WideResNet-{weights.depth}-{weights.widen_factor}"
    figures, arrays = examine(setup, placed, options, corrupted, title)
    if out:
        head = {"step": None, "epoch": None, "chosen_as": [], "judge": None, "weights": file}
        write(out, options.weights.stem, head | figures, arrays)


def check_same_images(own: configs.Data, asked: configs.Data) -> None:
    """Refuses keys by which the training and held-out images would be others than the run's. Raises UserError."""
    for name in ("name", "validation_size", "validation_seed", "embedded_train", "embedded_seed"):
        if getattr(own, name) != getattr(asked, name):
            raise UserError(
                f"data.{name} = {getattr(asked, name)}: the run had {getattr(own, name)}; with another value, training and "
                "held-out images would not be the run's"
            )


def make_directory(directory: Path) -> Path:
    """Makes the directory for the files, and finds out before any work whether it can be written to. Raises UserError."""
    try:
        files.make_directory(directory)
    except UserError as error:
        raise UserError(f"{error}; --out DIR puts the files elsewhere") from None
    return directory


def corrupted_images(options: argparse.Namespace, dataset: Dataset, data: configs.Data) -> evaluator.Corrupted | None:
    """The corrupted test images that the options ask for. Raises UserError."""
    if options.corruptions is None:
        return None
    total = len(dataset.test.labels)
    count = total if options.corruption_images is None else options.corruption_images
    if not 1 <= count <= total:
        raise UserError(f"--corruption-images {count}: should be between 1 and {total}, the number of test images")
    if options.corruptions not in ("", DRAWN):
        return evaluator.stored(Path(options.corruptions), dataset.test, count)
    info = DATASETS[data.name]
    if options.corruptions == "" and not info.drawn:
        folder = cifar.resolve_directory(data.directory) / f"{info.title}-C"
        if folder.is_dir():
            return evaluator.stored(folder, dataset.test, count)
    return evaluator.drawn(dataset.test, count)


def examine(
    setup: loop.EvaluationSetup,
    weights: tuple[Any, Any],
    options: argparse.Namespace,
    corrupted: evaluator.Corrupted | None,
    title: str,
    flattered: bool = False,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All figures of a network, printed as they come.

    Args:
      setup: data and network.
      weights: parameters and running statistics, on the devices.
      options: `train`, `save_train` and `flip` are read.
      corrupted: further test images.
      title: what is evaluated.
      flattered: whether it was chosen on the test images.

    Returns:
      (figures as plain data, arrays), see the module's docstring; an accuracy is in 0..1, a loss in nats.
    """
    dataset, dtype = setup.dataset, setup.network.dtype

    def run(images: np.ndarray, what: str) -> np.ndarray:
        with console.Progress(what, len(images), "image", interval=30.0) as progress:
            return collect(setup.evaluator.logits(*weights, images), progress.advance)

    # Test images, and what the hold-out says of them.
    test_logits = run(dataset.test.images, "test images")
    scored = {"test": metrics.score(test_logits, dataset.test.labels)}
    splits = {"test": metrics.summary(scored["test"])}
    temperature, missing = None, "no hold-out to fit it on, and it is never fitted on test images"
    if dataset.valid is not None:
        valid_logits = run(dataset.valid.images, "held-out images")
        scored["valid"] = metrics.score(valid_logits, dataset.valid.labels)
        splits["valid"] = metrics.summary(scored["valid"])
        temperature = scaled_by(valid_logits, dataset.valid.labels, test_logits, dataset.test.labels)
        missing = "no temperature between 0.01 and 100 makes the loss on the hold-out smallest"
    classes = breakdown(scored["test"], dataset)
    print(f"{title}, {dtype}: {splits['test']['count']} test images")
    for line in [*test_lines(splits, temperature, missing), *class_lines(classes)]:
        print(line)
    if flattered:
        print("this checkpoint was chosen on these very images (no hold-out), which flatters its accuracy")

    # Training images, as test images are evaluated.
    gap = None
    if options.train:
        scored["train"] = metrics.score(run(dataset.train.images, "training images"), dataset.train.labels)
        train = splits["train"] = metrics.summary(scored["train"])
        gap = train["accuracy"] - splits["test"]["accuracy"]
        print(f"clean train accuracy  {train['accuracy']:.2%}  ({train['count']} images, loss {train['loss']:.4f})")
        print(f"clean gap             {100 * gap:.2f} points")

    # Test images in other forms.
    flip = None
    if options.flip:
        mirrored = run(dataset.test.images[:, :, ::-1], "mirror images")
        flip = metrics.summary(metrics.score(metrics.log_mean(test_logits, mirrored), dataset.test.labels))
        print(f"with flip (mean of image and mirror image): accuracy {flip['accuracy']:.2%}, loss {flip['loss']:.4f}")
    figures = {
        "precision": dtype,
        "hardware": environment.hardware() | {"devices_used": setup.mesh.size},
        "versions": environment.versions(),
        "splits": splits,
        "clean_gap": gap,
        "temperature": temperature,
        **({"temperature_missing": missing} if temperature is None else {}),
        **classes,
        "flip": flip,
        **corruption_figures(setup.evaluator, weights, corrupted),
    }
    arrays = {"test_digest": np.array(digest(dataset.test.labels))}
    for name, one in scored.items():
        if name != "train" or options.save_train:
            arrays |= {f"{name}_{field}": array for field, array in compact(one).items()}
    return figures, arrays


def collect(parts: Iterator[np.ndarray], advance: Callable[[int], None]) -> np.ndarray:
    """All parts as one array; `advance` is told the length of each as it comes."""
    kept = []
    for part in parts:
        kept.append(part)
        advance(len(part))
    return np.concatenate(kept)


def scaled_by(
    valid_logits: np.ndarray, valid_labels: np.ndarray, test_logits: np.ndarray, test_labels: np.ndarray
) -> dict[str, Any] | None:
    """The temperature fitted on the hold-out, and loss and calibration error of the test images with it; None without one."""
    value = metrics.fit_temperature(valid_logits, valid_labels)
    if value is None:
        return None
    after = metrics.summary(metrics.score(test_logits / np.float64(value), test_labels))
    return {"value": value, "fitted_on": "valid", "loss": after["loss"], "calibration_error": after["calibration_error"]}


def breakdown(scored: metrics.Scored, dataset: Dataset) -> dict[str, Any]:
    """Accuracy over superclasses and classes, and what is taken for what.

    `superclasses`: {name: share of its images of which the very class was predicted}; `superclass_accuracy`: share of all
    images of which the superclass was, whatever the class; both None where the set has no superclasses. `classes`: {name:
    accuracy}. None for what has no images. `confused`: the 20 pairs of `metrics.confused_pairs`.
    """
    names = dataset.class_names
    info = DATASETS[dataset.name]
    groups, group_of = tuple(info.superclasses), info.superclass_of
    by_group = metrics.accuracy_by_group(scored, group_of, len(groups)) if groups else []
    by_class = metrics.accuracy_by_group(scored, range(len(names)), len(names))
    return {
        "superclasses": dict(zip(groups, by_group, strict=True)) if groups else None,
        "superclass_accuracy": metrics.same_group(scored, group_of) if groups else None,
        "classes": dict(zip(names, by_class, strict=True)),
        "confused": metrics.confused_pairs(scored, names, most=20),
    }


def test_lines(splits: Mapping[str, Any], temperature: Mapping[str, Any] | None, missing: str) -> list[str]:
    """What to print of the figures of the test and held-out images."""
    test = splits["test"]
    low, high = test["accuracy_interval"]
    lines = [
        f"accuracy  {test['accuracy']:.2%}  (95 % interval {low:.2%} to {high:.2%})",
        f"top-5     {test['top5']:.2%}",
        f"loss      {test['loss']:.4f}",
        f"calibration error  {test['calibration_error']:.2%}",
    ]
    if test["without_prediction"]:
        lines.append(f"{test['without_prediction']} images have outputs that are not finite, and count as wrong")
    if temperature is None:
        lines.append(f"no temperature scaling: {missing}")
    else:
        lines.append(
            f"with temperature {temperature['value']:.3f}, fitted on the hold-out: calibration error "
            f"{temperature['calibration_error']:.2%}, loss {temperature['loss']:.4f}"
        )
    if "valid" in splits:
        valid = splits["valid"]
        lines.append(f"validation accuracy  {valid['accuracy']:.2%}  ({valid['count']} images, loss {valid['loss']:.4f})")
    return lines


def class_lines(classes: Mapping[str, Any]) -> list[str]:
    """What to print of `breakdown`: the best and the worst groups, and ten pairs."""
    lines = []
    if classes["superclasses"]:
        lines += [f"superclass right  {classes['superclass_accuracy']:.2%}", *_extremes("superclasses", classes, 3)]
    lines += _extremes("classes", classes, 5)
    if classes["confused"]:
        lines.append("most confused:")
        lines += [f"  {count:4d} x {true} taken for {predicted}" for true, predicted, count in classes["confused"][:10]]
    return lines


def _extremes(kind: str, classes: Mapping[str, Any], number: int) -> list[str]:
    known = [(name, accuracy) for name, accuracy in classes[kind].items() if accuracy is not None]
    best = sorted(known, key=lambda pair: -pair[1])[:number]
    worst = sorted(known, key=lambda pair: pair[1])[:number]
    return [
        f"{which} {kind}: {', '.join(f'{name} {accuracy:.1%}' for name, accuracy in pairs)}"
        for which, pairs in (("best", best), ("worst", worst))
    ]


def corruption_figures(
    evaluator: evaluator.Evaluator, weights: tuple[Any, Any], corrupted: evaluator.Corrupted | None
) -> dict[str, Any]:
    """Accuracy on corrupted images, printed as it comes.

    `corruptions`: {name: accuracies at severities 1 to 5}. `mean_corruption_accuracy`: their mean over the corruptions of
    the benchmark that are there, `corruptions_in_mean`, all severities alike; 1 minus it is the mean corruption error as it
    is used on CIFAR, not divided by that of another network (Hendrycks and Dietterich, 2019; Hendrycks et al., "AugMix",
    2020). All None without corrupted images.
    """
    if corrupted is None:
        keys = ("corruptions", "mean_corruption_accuracy", "corruptions_in_mean", "corruptions_from", "corruptions_exact")
        return dict.fromkeys((*keys, "corruption_images"))
    few = f"only the first {corrupted.count} of" if corrupted.count < corrupted.total else "all"
    print(f"corruptions ({corrupted.origin}; {few} {corrupted.total} images): accuracy at severities 1 to 5, mean")
    found: dict[str, list[float]] = {}
    total = corrupted.count * len(corrupted.exact) * len(SEVERITIES)
    with console.Progress("corrupted images", total, "image", interval=30.0) as progress:
        for name in corrupted.exact:
            found[name] = []
            for severity in SEVERITIES:
                logits = collect(evaluator.logits(*weights, corrupted.images(name, severity)), progress.advance)
                found[name].append(float(metrics.score(logits, corrupted.labels).correct.mean()))
            shown = "  ".join(f"{accuracy:6.2%}" for accuracy in found[name])
            console.say(f"  {name:18s} {shown}   {np.mean(found[name]):6.2%}")
    counted = [name for name in found if IN_BENCHMARK[name]]
    mean = float(np.mean([found[name] for name in counted])) if counted else None
    if counted:
        print(f"mean corruption accuracy  {mean:.2%}  (over {len(counted)} of the 15 corruptions of the benchmark)")
    return {
        "corruptions": found,
        "mean_corruption_accuracy": mean,
        "corruptions_in_mean": counted,
        "corruptions_from": corrupted.origin,
        "corruptions_exact": corrupted.exact,
        "corruption_images": corrupted.count,
    }


def compact(scored: metrics.Scored) -> dict[str, np.ndarray]:
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


def write(directory: Path, stem: str, figures: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes STEM.npz and STEM.json, replacing what was there; nobody meets half a file. Raises UserError."""
    header = {"format": FORMAT, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "command": shlex.join(sys.argv)}
    path = directory / f"{stem}.json"
    try:
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        temporary = directory / f"{stem}.npz.tmp"
        temporary.write_bytes(content.getvalue())
        os.replace(temporary, directory / f"{stem}.npz")
        files.write_atomically(path, json.dumps(rounded(header | dict(figures)), indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    print(f"written: {path} and {stem}.npz")


def rounded(node: Any) -> Any:
    """Plain data with every float to six decimals, and None for one that is not finite."""
    if isinstance(node, Mapping):
        return {name: rounded(child) for name, child in node.items()}
    if isinstance(node, list | tuple):
        return [rounded(child) for child in node]
    if isinstance(node, float):
        return round(node, 6) if math.isfinite(node) else None
    return node


if __name__ == "__main__":
    allocator.keep_freed_memory()
    sys.exit(command.run(main, "evaluate"))
