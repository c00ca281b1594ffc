"""The statistics of a comparison: what a few seeds, or the same images seen by two networks, allow to be said.

Accuracies may be given as fractions or in per cent; results are in the same unit. All tests are two-sided.
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from wrn_jax.evaluation.metrics import wilson_interval

LEVEL = 0.95
"""Of all intervals."""

FEW = 6
"""Values below which samples of unequal numbers are tested with fewer degrees of freedom."""

ROUNDING = 1e-11
"""Width of an interval that is nothing but rounding: no spread to judge by."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean of `n` independent values, their standard deviation (n - 1), and the t interval of the mean; None for n = 1."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference with its interval; `p` is the chance of one as large if there were none, None where nothing varies."""

    difference: float
    low: float
    high: float
    p: float | None

    def reverse(self) -> "Difference":
        """Second minus first."""
        return Difference(-self.difference, -self.high, -self.low, self.p)


@dataclasses.dataclass(frozen=True)
class Discordance:
    """How many images only the first, or only the second, of two networks gets right, and p of McNemar's test: exact, and in
    its mid-p form, which is less conservative."""

    only_first: int
    only_second: int
    exact: float
    mid: float


def summarise(values: Sequence[float]) -> Summary:
    """Mean, spread and interval of values that are independent, such as the accuracies of several seeds; at least one."""
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Summary(1, mean, None, None, None)
    sd = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Mean of `first` minus mean of `second`, independent samples of at least two values each.

    Welch, "The generalization of 'Student's' problem when several different population variances are involved", 1947. Of few
    values in unequal numbers his degrees of freedom, estimated from them, find differences that are not there: 10 times in a
    hundred instead of 5 for 2 values against 10. Where the smaller sample has fewer than `FEW`, its number less 1 is taken
    instead, which bounds the error whatever the spreads (Mickey & Brown, "Bounds on the distribution functions of the
    Behrens-Fisher statistic", 1966).
    """
    gap, fewest = float(np.mean(first) - np.mean(second)), min(len(first), len(second))
    if len(first) == len(second) or fewest >= FEW:
        return _by_t(stats.ttest_ind, gap, first, second, equal_var=False)
    error = math.sqrt(sum(float(np.var(values, ddof=1)) / len(values) for values in (first, second)))
    half = float(stats.t.ppf((1 + LEVEL) / 2, fewest - 1)) * error
    if not 2 * half > ROUNDING:
        return Difference(gap, gap, gap, None)
    return Difference(gap, gap - half, gap + half, 2 * float(stats.t.sf(abs(gap) / error, fewest - 1)))


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Mean of the differences between values that belong together, such as runs of the same seed; at least two pairs."""
    return _by_t(stats.ttest_rel, float(np.mean(np.subtract(first, second))), first, second)


def mcnemar(only_first: int, only_second: int) -> Discordance:
    """McNemar's test of whether two networks err equally often, from the images that one of them alone gets right.

    Fagerland, Lydersen & Laake, "The McNemar test for binary matched-pairs data", 2013, who recommend the mid-p form.
    """
    if only_first == only_second:
        return Discordance(only_first, only_second, 1.0, 1.0)
    total = only_first + only_second
    exact = float(stats.binomtest(only_first, total).pvalue)
    return Discordance(only_first, only_second, exact, exact - float(stats.binom.pmf(only_first, total, 0.5)))


def over_images(first: np.ndarray, second: np.ndarray) -> Difference:
    """Difference in accuracy of two sets of networks on the same images, with the interval of sampling the images.

    Each image counts by the share of a set's networks that get it right, so images, not networks, are what is sampled: the
    result holds for these networks on other images. Normal approximation, for hundreds of images or more.

    Args:
      first, second: bool [networks, images], as many images in both.
    """
    gaps = first.mean(axis=0) - second.mean(axis=0)
    difference, error = float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * error
    p = 2 * float(stats.norm.sf(abs(difference) / error)) if error else None
    return Difference(difference, difference - half, difference + half, p)


def proportions(first: tuple[float, int], second: tuple[float, int]) -> Difference:
    """Difference of two proportions, each (fraction, count), as fractions; of accuracies as if on different images.

    Newcombe, "Interval estimation for the difference between independent proportions", 1998, method 10; p of the pooled z test.
    """
    (a, m), (b, n) = first, second
    (low_a, high_a), (low_b, high_b) = wilson_interval(round(a * m), m), wilson_interval(round(b * n), n)
    pooled = (a * m + b * n) / (m + n)
    error = math.sqrt(pooled * (1 - pooled) * (1 / m + 1 / n))
    p = 2 * float(stats.norm.sf(abs(a - b) / error)) if error else None
    return Difference(a - b, a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values of several tests, adjusted so that together they keep the error rate of one.

    Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's correlation, -1..1; None if either does not vary."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    result: Any = stats.spearmanr(first, second)
    return float(result.statistic)


def _by_t(test: Any, difference: float, first: Sequence[float], second: Sequence[float], **options: Any) -> Difference:
    """The difference of two means by one of SciPy's t tests."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # of values that are all the same
        result = test(first, second, **options)
        interval = result.confidence_interval(LEVEL)
    if not interval.high - interval.low > ROUNDING:
        return Difference(difference, difference, difference, None)
    return Difference(difference, float(interval.low), float(interval.high), float(result.pvalue))
