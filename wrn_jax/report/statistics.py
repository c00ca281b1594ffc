"""The statistics of a comparison: what a few seeds, or the same images seen by two networks, allow to be said.

Accuracies may be given as fractions or in per cent; results are in the same unit. All tests are two-sided.
"""

import dataclasses
import functools
import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # its parts when they are asked for: they take longer than all else here

from wrn_jax.evaluation.metrics import wilson_interval

LEVEL = 0.95
"""Of all intervals."""

SIGNIFICANCE = 0.05
"""Of all tests together that a verdict rests on: the chance of showing a difference where there is none."""

POWER = 0.8
"""With which a study should show the difference that it is made for."""

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
class Spread:
    """A standard deviation with its interval."""

    sd: float
    low: float
    high: float


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
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def pooled_spread(samples: Sequence[Sequence[float]]) -> Spread:
    """The standard deviation that samples have in common, each about its own mean, and its chi-square interval.

    Raises ValueError unless one has two values.
    """
    freedom = sum(len(values) - 1 for values in samples)
    if freedom < 1:
        raise ValueError("single values have no spread")
    squares = sum((len(values) - 1) * float(np.var(values, ddof=1)) for values in samples if len(values) > 1)
    low, high = (
        math.sqrt(squares / float(scipy.stats.chi2.ppf(share, freedom))) for share in ((1 + LEVEL) / 2, (1 - LEVEL) / 2)
    )
    return Spread(math.sqrt(squares / freedom), low, high)


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
        return _by_t(scipy.stats.ttest_ind, gap, first, second, equal_var=False)
    error = math.sqrt(sum(float(np.var(values, ddof=1)) / len(values) for values in (first, second)))
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, fewest - 1)) * error
    if not 2 * half > ROUNDING:
        return Difference(gap, gap, gap, None)
    return Difference(gap, gap - half, gap + half, 2 * float(scipy.stats.t.sf(abs(gap) / error, fewest - 1)))


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Mean of the differences between values that belong together, such as runs of the same seed; at least two pairs."""
    return _by_t(scipy.stats.ttest_rel, float(np.mean(np.subtract(first, second))), first, second)


def mcnemar(only_first: int, only_second: int) -> Discordance:
    """McNemar's test of whether two networks err equally often, from the images that one of them alone gets right.

    Fagerland, Lydersen & Laake, "The McNemar test for binary matched-pairs data", 2013, who recommend the mid-p form.
    """
    if only_first == only_second:
        return Discordance(only_first, only_second, 1.0, 1.0)
    total = only_first + only_second
    exact = min(1.0, 2 * float(scipy.stats.binom.cdf(min(only_first, only_second), total, 0.5)))
    return Discordance(only_first, only_second, exact, exact - float(scipy.stats.binom.pmf(only_first, total, 0.5)))


def over_images(first: np.ndarray, second: np.ndarray) -> Difference:
    """Difference in accuracy of two sets of networks on the same images, with the interval of sampling the images.

    Each image counts by the share of a set's networks that get it right, so images, not networks, are what is sampled: the
    result holds for these networks on other images. Normal approximation, for hundreds of images or more.

    Args:
      first, second: bool [networks, images], as many images in both.
    """
    gaps = first.mean(axis=0) - second.mean(axis=0)
    difference, error = float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(len(gaps))
    # Not by scipy.stats, whose checks take longer than all else here: a report has thousands of these.
    half = float(scipy.special.ndtri((1 + LEVEL) / 2)) * error
    p = 2 * float(scipy.special.ndtr(-abs(difference) / error)) if error else None
    return Difference(difference, difference - half, difference + half, p)


def proportions(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float]:
    """The interval of the difference of two proportions, each (fraction, count); of accuracies as if on different images.

    Newcombe, "Interval estimation for the difference between independent proportions", 1998, method 10.
    """
    (a, m), (b, n) = first, second
    (low_a, high_a), (low_b, high_b) = wilson_interval(round(a * m), m), wilson_interval(round(b * n), n)
    return a - b - math.hypot(a - low_a, high_b - b), a - b + math.hypot(high_a - a, b - low_b)


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


def power_of(
    seeds: int | tuple[int, int],
    difference: float,
    spread: float,
    *,
    paired: bool = False,
    significance: float = SIGNIFICANCE,
) -> float:
    """The chance, 0..1, that a test of two recipes with so many seeds each shows a true difference.

    By the noncentral t distribution: of the paired t test, or of `welch` on two recipes of one spread. That takes degrees of
    freedom and standard error from the two variances, which costs power where seeds are few. The share of the one in the sum
    of squares follows a beta distribution and is independent of that sum, so the power is averaged over it.

    Args:
      seeds: runs of each recipe, at least 2; of unequal numbers both, which `paired` has not.
      difference: true difference of the means, of whatever sign.
      spread: standard deviation over seeds, in the same unit: of either recipe, or if `paired` of the differences by seed.
      significance: of the two-sided test: after Holm's adjustment or at a look, that of this one comparison.
    """
    first, second = (seeds, seeds) if isinstance(seeds, int) else seeds
    if min(first, second) < 2 or (paired and first != second) or spread < 0 or not 0 < significance < 1:
        raise ValueError(f"{seeds} seeds, a spread of {spread} and significance {significance} make no test")
    if not spread:
        return float(difference != 0)
    error = math.sqrt(1 / first if paired else 1 / first + 1 / second)  # of the difference of the means, in spreads
    effect = min(max(abs(difference) / spread / error, 1e-6), _MOST_EFFECT)  # SciPy's noncentral F is wrong at 0 and far out
    freedom = first - 1 if paired else first + second - 2
    critical = scipy.stats.t.isf(significance / 2, freedom) if paired else _welch_critical(first, second, significance)
    return float(np.mean(scipy.stats.ncf.sf(critical**2, 1, freedom, effect**2)))  # the square of a noncentral t, so both sides


_MOST_EFFECT = 1e3
"""Standard errors of a difference, of which more count as so many in a power."""


def _welch_critical(first: int, second: int, significance: float) -> np.ndarray:
    """What a t value with the pooled variance has to be beyond for `welch` to show a difference, [128].

    One for each of 128 equally likely shares of the first recipe in the sum of squares.
    """
    share = scipy.stats.beta.ppf((np.arange(128) + 0.5) / 128, (first - 1) / 2, (second - 1) / 2)
    a, b = share / (first - 1) / first, (1 - share) / (second - 1) / second  # squares of standard errors, by the sum
    if first == second or min(first, second) >= FEW:
        of_test = (a + b) ** 2 / (a**2 / (first - 1) + b**2 / (second - 1))
    else:
        of_test = np.full(128, min(first, second) - 1)
    pooled = (1 / first + 1 / second) / (first + second - 2)
    return scipy.stats.t.isf(significance / 2, of_test) * np.sqrt((a + b) / pooled)


def seeds_needed(
    difference: float, spread: float, power: float = POWER, *, paired: bool = False, significance: float = SIGNIFICANCE
) -> int:
    """The smallest number of seeds of each recipe with which a difference is shown with this power; see `power_of`.

    Raises ValueError for a difference of 0, which no number of seeds shows, and for a power that is not in 0..1.
    """
    if not difference or not significance < power < 1:
        raise ValueError(f"a difference of {difference} is not shown with power {power} by any number of seeds")

    def enough(seeds: int) -> bool:
        return power_of(seeds, difference, spread, paired=paired, significance=significance) >= power

    few, many = 1, 2
    while not enough(many):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def detectable(
    seeds: int | tuple[int, int],
    spread: float,
    power: float = POWER,
    *,
    paired: bool = False,
    significance: float = SIGNIFICANCE,
) -> float:
    """The smallest difference that so many seeds of each recipe show with this power, in the unit of `spread`; see `power_of`.

    Infinite where it is above a thousand standard errors. Raises ValueError for a power that is not in `significance`..1.
    """
    if not significance < power < 1:
        raise ValueError(f"power {power} should lie between {significance} and 1")
    return spread * _detectable_effect(seeds, power, paired, significance) if spread else 0.0


@functools.lru_cache(maxsize=256)
def _detectable_effect(seeds: int | tuple[int, int], power: float, paired: bool, significance: float) -> float:
    """As `detectable`, in spreads."""

    def excess(effect: float) -> float:
        return power_of(seeds, effect, 1.0, paired=paired, significance=significance) - power

    high = 1.0
    while excess(high) < 0:
        if high > _MOST_EFFECT:  # so that its standard errors are more, too
            return math.inf
        high *= 2
    return _root(excess, 0.0, high)


def _root(function: Any, low: float, high: float) -> float:
    solution: Any = scipy.optimize.brentq(function, low, high)
    return float(solution)


def levels_at_looks(fractions: Sequence[float], significance: float = SIGNIFICANCE) -> list[float]:
    """At which significance to test at each of several looks, so that all together keep to `significance`.

    Lan & DeMets, "Discrete sequential boundaries for clinical trials", 1983, with the spending function that resembles O'Brien
    and Fleming's boundaries: by the share t of the seeds, 4 (1 - Phi(z / sqrt(t))) is spent, z the upper quantile of
    significance / 4. Almost nothing is spent early, so that the last test is nearly the one without looks. When looks are taken
    need not be planned; how many seeds there are in the end must be.

    Args:
      fractions: the seeds that were there at each look as shares of those planned, in 0..1, each above the one before.
      significance: two-sided.
    """
    if any(not before < after <= 1 for before, after in itertools.pairwise([0.0, *fractions])):
        raise ValueError(f"looks at {list(fractions)}: shares of the seeds should rise within 0..1")
    spent = 4 * scipy.stats.norm.sf(scipy.stats.norm.isf(significance / 4) / np.sqrt(fractions))
    levels: list[float] = []
    # The sum of what was seen so far walks as Brownian motion; `mass` is where it may be at points of the last look, not beyond
    # the boundaries before (Armitage, McPherson & Rowe, "Repeated significance tests on accumulating data", 1969).
    points, mass, before = np.zeros(1), np.ones(1), 0.0
    for fraction, now in zip(fractions, np.diff(spent, prepend=0.0), strict=True):
        step = math.sqrt(fraction - before)

        def beyond(edge: float, points: np.ndarray = points, mass: np.ndarray = mass, step: float = step) -> float:
            return float(mass @ (scipy.special.ndtr((points - edge) / step) + scipy.special.ndtr((-edge - points) / step)))

        farthest = _FARTHEST * math.sqrt(fraction)
        edge = farthest
        if now > beyond(farthest):
            edge = _root(lambda edge, now=now, beyond=beyond: beyond(edge) - now, 0.0, farthest)
        levels.append(2 * float(scipy.stats.norm.sf(edge / math.sqrt(fraction))))
        places = np.linspace(-edge, edge, 2 * _HALF + 1)
        density = np.exp(-0.5 * ((places[:, None] - points) / step) ** 2) @ mass / (step * math.sqrt(2 * math.pi))
        points, mass, before = places, density * _SIMPSON * edge / _HALF, fraction
    return levels


_FARTHEST = 8.0
"""Standard errors beyond which no boundary is looked for: p of 1e-15."""

_HALF = 150
_SIMPSON = np.array([1.0, *[4.0, 2.0] * (_HALF - 1), 4.0, 1.0]) / 3
"""The weights of Simpson's rule on 2 `_HALF` + 1 points."""


_MARGIN = 1.05
"""What a significance is divided by where there are looks before the end.

The boundaries are those of normal means. Values of t are less alike from look to look, since each has a spread of its own: with
8 to 30 looks and Welch's test a difference that is not there was shown in up to 5.2 of 100 simulated studies, with this in 4.9.
"""


def last_level(fractions: Sequence[float], significance: float = SIGNIFICANCE) -> float:
    """At which significance to test at the last of several looks, with t tests; see `levels_at_looks`."""
    if len(fractions) == 1 and fractions[0] == 1:
        return significance
    return levels_at_looks(fractions, significance / _MARGIN)[-1]


def after_looks(p: float, fractions: Sequence[float]) -> float:
    """The p value of a t test at the last of several looks, adjusted so that all looks together keep the error rate of one.

    It is the smallest significance at which `last_level` would let this look show a difference (Liu & Anderson, "On
    adaptive extensions of group sequential trials for clinical investigations", 2008). As a p value it may go through `holm`.
    """
    if len(fractions) == 1 and fractions[0] == 1:
        return p
    together, at_this_look = _adjusted(tuple(fractions))
    return float(np.exp(np.interp(math.log(max(p, 1e-300)), at_this_look, together)))


@functools.lru_cache(maxsize=64)
def _adjusted(fractions: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of significances, and of what `last_level` makes of each."""
    together = np.geomspace(1e-6, 1.0, 25)
    return np.log(together), np.log([last_level(fractions, significance) for significance in together])


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's correlation, -1..1; None if either does not vary."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    result: Any = scipy.stats.spearmanr(first, second)
    return float(result.statistic)


def _by_t(test: Any, difference: float, first: Sequence[float], second: Sequence[float], **options: Any) -> Difference:
    """The difference of two means by one of SciPy's t tests."""
    low, high, p = _tested(test, tuple(first), tuple(second), **options)
    if not high - low > ROUNDING:
        return Difference(difference, difference, difference, None)
    return Difference(difference, low, high, p)


@functools.lru_cache(maxsize=10_000)  # a report asks for the same pair several times, and a test takes milliseconds
def _tested(test: Any, first: tuple[float, ...], second: tuple[float, ...], **options: Any) -> tuple[float, float, float]:
    """Interval of the difference, and p."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # of values that are all the same
        result = test(first, second, **options)
        interval = result.confidence_interval(LEVEL)
    return float(interval.low), float(interval.high), float(result.pvalue)
