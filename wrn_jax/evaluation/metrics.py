"""What a network's outputs on labelled images amount to: figures of logits and labels, in numpy alone.

Logits are [N, C] of any float type; labels are [N] integers, each below C. Fractions are in 0..1, losses in nats. An image
with a logit that is not finite has no prediction: it counts, and as wrong.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import scipy  # its parts when they are asked for: they take longer than all else here

from wrn_jax.config import datasets

BINS = 15
TEMPERATURES = (0.01, 100.0)
"""Between these a temperature is searched."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """What is known of each of N images, in their order.

    Attributes:
      labels: [N] int64.
      predicted: [N] int64, the class of the largest logit, the first among equals; C where there is no prediction.
      confidence: [N] float64, the probability of that class; NaN where there is no prediction.
      own: [N] float64, the probability of the right label; NaN likewise.
      losses: [N] float64, minus the logarithm of `own`; NaN likewise.
      in_top5: [N] bool, whether fewer than five classes score strictly higher than the right one.
      num_classes: C.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    own: np.ndarray
    losses: np.ndarray
    in_top5: np.ndarray
    num_classes: int

    @property
    def correct(self) -> np.ndarray:
        """[N] bool, whether the prediction is the label."""
        return self.predicted == self.labels


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities, [N, C] float64; rows that are not finite throughout become NaN."""
    finite = np.isfinite(logits).all(axis=1, keepdims=True)
    return np.where(finite, scipy.special.log_softmax(np.where(finite, logits, 0).astype(np.float64), axis=1), np.nan)


def log_mean(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Logarithms of the mean of the probabilities that two sets of logits give, [N, C] float64; logits themselves."""
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.logaddexp(log_softmax(first), log_softmax(second)) - math.log(2)


def score(logits: np.ndarray, labels: np.ndarray) -> Scored:
    """What the logits say of each image."""
    logs, labels = log_softmax(logits), labels.astype(np.int64)
    rows, num_classes = np.arange(len(labels)), logits.shape[1]
    finite = np.isfinite(logits).all(axis=1)
    # Ranks are those of the logits themselves: rounding in the softmax could make equals of unequals.
    best, own_logit = np.where(finite, logits.argmax(axis=1), 0), logits[rows, labels][:, None]
    return Scored(
        labels=labels,
        predicted=np.where(finite, best, num_classes),
        confidence=np.exp(logs[rows, best]),
        own=np.exp(logs[rows, labels]),
        losses=-logs[rows, labels],
        in_top5=finite & ((logits > own_logit).sum(axis=1) < 5),
        num_classes=num_classes,
    )


def summary(scored: Scored) -> dict[str, Any]:
    """The figures of a split, JSON data.

    `count`; `without_prediction`, images whose logits are not finite; `accuracy`; `accuracy_interval`, see
    `wilson_interval`; `top5`; `loss`, the mean negative log-likelihood of the right label; `calibration_error`, see there.
    The last two are NaN when an image has no prediction. Raises ValueError for no images.
    """
    count, right = len(scored.labels), int(scored.correct.sum())
    low, high = wilson_interval(right, count)
    return {
        "count": count,
        "without_prediction": int((scored.predicted == scored.num_classes).sum()),
        "accuracy": right / count,
        "accuracy_interval": [low, high],
        "top5": float(scored.in_top5.mean()),
        "loss": float(scored.losses.mean()),
        "calibration_error": calibration_error(scored.confidence, scored.correct),
    }


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a fraction of which `right` out of `count` were observed.

    Unlike the usual interval it stays within 0..1 and has a width at 0 and 1. It covers the chance of which images were
    drawn, not that of the training. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.

    Raises ValueError unless 0 <= right <= count and count > 0.
    """
    if not 0 <= right <= count or count == 0:
        raise ValueError(f"right must be in 0..count and count positive, got {right} of {count}")
    interval = scipy.stats.binomtest(right, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: how far confidence is from accuracy, on average over the images.

    The confidences, [N] in 0..1, fall into `bins` intervals ((m - 1) / bins, m / bins]; the absolute difference of mean
    confidence and accuracy, [N] bool, in each is weighted with its share of the images. NaN if a confidence is.
    Guo et al., "On Calibration of Modern Neural Networks", 2017, equations 2 and 3; their number of bins is 15.
    """
    if np.isnan(confidence).any():
        return math.nan
    index = _bins_of(confidence, bins)
    excess = np.bincount(index, confidence - correct, bins)
    return float(np.abs(excess).sum() / len(confidence))


@dataclasses.dataclass(frozen=True)
class Bin:
    """The images whose confidence falls into one interval: their mean confidence, how many, and how many of them are right."""

    confidence: float
    count: int
    right: int


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> list[Bin]:
    """The intervals of `calibration_error` that hold images, by rising confidence; images without a prediction are left out."""
    known = np.isfinite(confidence)
    confidence, correct = confidence[known], correct[known]
    index = _bins_of(confidence, bins)
    groups = [index == number for number in range(bins)]
    return [Bin(float(confidence[g].mean()), int(g.sum()), int(correct[g].sum())) for g in groups if g.any()]


def _bins_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The interval of each confidence, from 0."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The T > 0 that makes the mean negative log-likelihood of softmax(logits / T) smallest.

    Guo et al., 2017, section 4.2. The likelihood is convex in 1 / T, so the place where its derivative vanishes is
    the best. None where there is none between `TEMPERATURES`: when every image is classified right, less is always better,
    and outputs that know less than chance want none at all; or where a logit is not finite.
    """
    if not np.isfinite(logits).all():
        return None
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    own = logits[np.arange(len(labels)), labels].mean()

    def slope(log_inverse: float) -> float:
        inverse = math.exp(log_inverse)
        return float((scipy.special.softmax(logits * inverse, axis=1) * logits).sum(axis=1).mean() - own)

    low, high = (-math.log(temperature) for temperature in reversed(TEMPERATURES))
    return math.exp(-cast(float, scipy.optimize.brentq(slope, low, high, xtol=1e-12))) if slope(low) < 0 < slope(high) else None


def accuracy_by_group(scored: Scored, group_of: Sequence[int], groups: int) -> list[float | None]:
    """Accuracy over the images of each of `groups` groups of labels, None where there are no images.

    `group_of` [number of labels] is the group of every label; `range(n)` for classes. Right is only the very class.
    """
    group = np.asarray(group_of)[scored.labels]
    right, count = np.bincount(group, scored.correct, groups), np.bincount(group, minlength=groups)
    return [float(r / c) if c else None for r, c in zip(right, count, strict=True)]


def same_group(scored: Scored, group_of: Sequence[int]) -> float:
    """The share of images whose predicted class is of the same group as the right one."""
    # What is no label, such as no prediction, is of no group.
    table = np.concatenate([group_of, np.full(scored.num_classes + 1 - len(group_of), -1)])
    return float((table[scored.predicted] == table[scored.labels]).mean())


def confused_pairs(scored: Scored, names: Sequence[str], most: int) -> list[tuple[str, str, int]]:
    """The `most` frequent mistakes: (name of the right class, name of the predicted one, images), by falling number.

    Among equals the lower label comes first. Images without a prediction are no pair. A network may have more outputs than
    there are `names`.
    """
    wrong = ~scored.correct & (scored.predicted < scored.num_classes)
    pairs = scored.labels[wrong] * scored.num_classes + scored.predicted[wrong]
    found, counts = np.unique(pairs, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    names = datasets.output_names(names, scored.num_classes)
    labels, predicted = np.divmod(found[order], scored.num_classes)
    return [(names[a], names[b], int(n)) for a, b, n in zip(labels, predicted, counts[order], strict=True)]
