"""Examining a network on test, held-out, training, mirrored and corrupted images; what it finds is printed as it comes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from wrn_jax.config.datasets import DATASETS
from wrn_jax.data.corruptions import SEVERITIES
from wrn_jax.data.loading import Dataset
from wrn_jax.evaluation import metrics
from wrn_jax.evaluation.corrupted import IN_BENCHMARK, Corrupted
from wrn_jax.evaluation.evaluator import Evaluator
from wrn_jax.runtime import console


def examine(
    evaluator: Evaluator,
    weights: tuple[Any, Any],
    dataset: Dataset,
    corrupted: Corrupted | None,
    title: str,
    train: bool = True,
    flip: bool = False,
    flattered: bool = False,
) -> tuple[dict[str, Any], dict[str, metrics.Scored]]:
    """All figures of a network, printed as they come.

    Args:
      evaluator: of the network.
      weights: parameters and running statistics, on the devices.
      dataset: the images.
      corrupted: further test images.
      title: what is evaluated.
      train: whether to evaluate the training images too.
      flip: whether to average the outputs for each image and its mirror image too.
      flattered: whether the checkpoint was chosen on the test images.

    Returns:
      (the figures of a `files.Record`, what is known of each image of "test", "valid", "train" as far as evaluated).
    """

    def run(images: np.ndarray, what: str) -> np.ndarray:
        with console.Progress(what, len(images), "image", interval=30.0) as progress:
            return collect(evaluator.logits(*weights, images), progress.advance)

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
    print(f"{title}: {splits['test']['count']} test images")
    for line in [*test_lines(splits, temperature, missing), *class_lines(classes)]:
        print(line)
    if flattered:
        print("this checkpoint was chosen on these very images (no hold-out), which flatters its accuracy")

    # Training images, as test images are evaluated.
    gap = None
    if train:
        scored["train"] = metrics.score(run(dataset.train.images, "training images"), dataset.train.labels)
        clean = splits["train"] = metrics.summary(scored["train"])
        gap = clean["accuracy"] - splits["test"]["accuracy"]
        print(f"clean train accuracy  {clean['accuracy']:.2%}  ({clean['count']} images, loss {clean['loss']:.4f})")
        print(f"clean gap             {100 * gap:.2f} points")

    # Test images in other forms.
    flipped = None
    if flip:
        mirrored = run(dataset.test.images[:, :, ::-1], "mirror images")
        flipped = metrics.summary(metrics.score(metrics.log_mean(test_logits, mirrored), dataset.test.labels))
        print(f"with flip (mean of image and mirror image): accuracy {flipped['accuracy']:.2%}, loss {flipped['loss']:.4f}")
    figures = {
        "splits": splits,
        "clean_gap": gap,
        "temperature": temperature,
        "temperature_missing": missing if temperature is None else None,
        **classes,
        "flip": flipped,
        **corruption_figures(evaluator, weights, corrupted),
    }
    return figures, scored


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


def corruption_figures(evaluator: Evaluator, weights: tuple[Any, Any], corrupted: Corrupted | None) -> dict[str, Any]:
    """Accuracy on corrupted images, printed as it comes.

    `corruptions`: {name: accuracies at severities 1 to 5}. `mean_corruption_accuracy`: their mean over the corruptions of
    the benchmark that are there, `corruptions_in_mean`, all severities alike; 1 minus it is the mean corruption error as it
    is used on CIFAR, not divided by that of another network (Hendrycks and Dietterich, 2019; Hendrycks et al., "AugMix",
    2020). Nothing without corrupted images.
    """
    if corrupted is None:
        return {}
    few = f"only the first {corrupted.count} of" if corrupted.count < corrupted.total else "all"
    print(f"corruptions ({corrupted.origin}; {few} {corrupted.total} images): accuracy at severities 1 to 5, mean")
    accuracies: dict[str, list[float]] = {}
    total = corrupted.count * len(corrupted.kinds) * len(SEVERITIES)
    with console.Progress("corrupted images", total, "image", interval=30.0) as progress:
        for name in corrupted.kinds:
            accuracies[name] = []
            for severity in SEVERITIES:
                logits = collect(evaluator.logits(*weights, corrupted.images(name, severity)), progress.advance)
                accuracies[name].append(float(metrics.score(logits, corrupted.labels).correct.mean()))
            shown = "  ".join(f"{accuracy:6.2%}" for accuracy in accuracies[name])
            console.say(f"  {name:18s} {shown}   {np.mean(accuracies[name]):6.2%}")
    counted = [name for name in accuracies if IN_BENCHMARK[name]]
    mean = float(np.mean([accuracies[name] for name in counted])) if counted else None
    if counted:
        print(f"mean corruption accuracy  {mean:.2%}  (over {len(counted)} of the 15 corruptions of the benchmark)")
    return {
        "corruptions": accuracies,
        "mean_corruption_accuracy": mean,
        "corruptions_in_mean": counted,
        "corruptions_from": corrupted.origin,
        "corruption_images": corrupted.count,
    }
