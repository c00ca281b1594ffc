"""The page of an evaluation, to look at: what is most surely wrong, what is taken for what, and how sure is how right."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from wrn_jax.config.datasets import output_names
from wrn_jax.data.pictures import to_png
from wrn_jax.evaluation import metrics
from wrn_jax.evaluation.metrics import Scored
from wrn_jax.report.render.blocks import Document, Picture, Pictures, Plot, Section, Series, Table, Text

MOST_WRONG = 48
PAIRS = 12
OF_A_PAIR = 4
"""Pictures of each class of a pair."""


def build(title: str, figures: Mapping[str, Any], scored: Scored, images: np.ndarray, class_names: Sequence[str]) -> Document:
    """The page.

    Args:
      title: what was evaluated.
      figures: as `examination.examine` gives them.
      scored: of the test images, likewise.
      images: the test images, [N, H, W, 3] uint8, in the same order.
      class_names: in the order of the labels.
    """
    names = output_names(class_names, scored.num_classes)
    return Document(
        f"Mistakes of {title}",
        [
            Section("Most surely wrong", _most_wrong(scored, images, names)),
            Section("Taken for each other", _pairs(scored, images, names)),
            Section("Class by class", [_classes(scored, names)]),
            Section("How sure, how right", _reliability(figures, scored)),
        ],
    )


def _most_wrong(scored: Scored, images: np.ndarray, names: Sequence[str]) -> list[Text | Pictures]:
    wrong = np.flatnonzero(~scored.correct & (scored.predicted < scored.num_classes))
    count, right = len(scored.labels), int(scored.correct.sum())
    text = Text(f"{count:,} test images, of which {right:,} ({right / count:.2%}) are recognised.")
    surest = wrong[np.argsort(-scored.confidence[wrong], kind="stable")][:MOST_WRONG]
    if not len(surest):
        return [text, Text("No image is taken for another class.")]
    caption = f"The {len(surest)} mistakes of which the network is surest, with the probability that it gives them"
    return [text, Pictures(caption, [("", [_picture(scored, images, names, index) for index in surest])])]


def _picture(scored: Scored, images: np.ndarray, names: Sequence[str], index: int) -> Picture:
    taken_for = names[int(scored.predicted[index])]
    own = names[int(scored.labels[index])]
    confidence = f"{scored.confidence[index]:.0%}"
    text = f"**{own}** {confidence}" if own == taken_for else f"**{own}**, taken for {taken_for} {confidence}"
    return Picture(to_png(Image.fromarray(images[index])), text)


def _pairs(scored: Scored, images: np.ndarray, names: Sequence[str]) -> list[Text | Pictures]:
    blocks: list[Text | Pictures] = []
    seen: set[frozenset[str]] = set()
    for first, second, _ in metrics.confused_pairs(scored, names, most=len(scored.labels)):
        if len(blocks) < PAIRS and frozenset((first, second)) not in seen:
            seen.add(frozenset((first, second)))
            labels = names.index(first), names.index(second)
            groups = [_one_of_a_pair(scored, images, names, *pair) for pair in (labels, labels[::-1])]
            blocks.append(Pictures(f"{first} and {second}", [group for group in groups if group[1]]))
    return blocks or [Text("No image is taken for another class.")]


def _one_of_a_pair(
    scored: Scored, images: np.ndarray, names: Sequence[str], label: int, other: int
) -> tuple[str, list[Picture]]:
    """Images of a class that are taken for the other, the surest first; where there is none, some that are recognised."""
    of_class = scored.labels == label
    mistaken = np.flatnonzero(of_class & (scored.predicted == other))
    shown = mistaken if len(mistaken) else np.flatnonzero(of_class & scored.correct)
    shown = shown[np.argsort(-scored.confidence[shown], kind="stable")][:OF_A_PAIR]
    share = f"{len(mistaken)} of {int(of_class.sum())} {names[label]} taken for {names[other]}"
    what = share if len(mistaken) else f"{share}; some that are recognised" * bool(len(shown))
    return what, [_picture(scored, images, names, index) for index in shown]


def _classes(scored: Scored, names: Sequence[str]) -> Table:
    """Every class with images, the worst first."""
    accuracies = metrics.accuracy_by_group(scored, range(scored.num_classes), scored.num_classes)
    rivals: dict[str, list[str]] = {}
    for own, other, count in metrics.confused_pairs(scored, names, most=len(scored.labels)):
        rivals.setdefault(own, []).append(f"{other} ({count})")
    known = [(accuracy, label) for label, accuracy in enumerate(accuracies) if accuracy is not None]
    rows = [
        [names[label], f"{accuracy:.1%}", str(int((scored.labels == label).sum())), ", ".join(rivals.get(names[label], [])[:4])]
        for accuracy, label in sorted(known)
    ]
    return Table("Accuracy of each class, the worst first", ["class", "accuracy", "images", "taken for (images)"], rows)


def _reliability(figures: Mapping[str, Any], scored: Scored) -> list[Text | Plot]:
    bins = metrics.reliability(scored.confidence, scored.correct)
    if not bins:
        return [Text("No output of the network is finite.", "warning")]
    confidences = [100 * one.confidence for one in bins]
    intervals = [metrics.wilson_interval(one.right, one.count) for one in bins]
    ends = [0.0, 100.0]
    plot = Plot(
        "reliability",
        "Accuracy by confidence, before any temperature",
        "confidence (%)",
        "accuracy (%)",
        [
            Series(
                "the network",
                confidences,
                [100 * one.right / one.count for one in bins],
                [100 * low for low, _ in intervals],
                [100 * high for _, high in intervals],
            ),
            Series("as sure as right", ends, ends),
        ],
        description=f"The test images in {len(bins)} groups by the probability of the predicted class, with 95 % intervals. "
        "Below the diagonal the network is surer than it is right.",
    )
    temperature = figures.get("temperature")
    test = figures["splits"]["test"]
    text = f"Calibration error {test['calibration_error']:.2%}, before any temperature, as the plot shows it."
    if temperature:
        text += (
            f" With the temperature {temperature['value']:.3f}, fitted on the hold-out, it is "
            f"{temperature['calibration_error']:.2%}."
        )
    return [Text(text), plot]
