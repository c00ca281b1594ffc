"""The statistics, against worked examples from textbooks and papers, and against formulas in other form."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from wrn_jax.report import statistics
from wrn_jax.report.statistics import Difference, Discordance, Summary

T_2 = 4.302653
"""The upper 2.5 % of Student's t with two degrees of freedom, from tables."""


def test_summaries_by_hand():
    half = T_2 * 0.01 / math.sqrt(3)
    ends = (pytest.approx(0.43 - half, abs=1e-6), pytest.approx(0.43 + half, abs=1e-6))
    assert statistics.summarise([0.42, 0.43, 0.44]) == Summary(3, pytest.approx(0.43), pytest.approx(0.01), *ends)
    assert statistics.summarise([0.5]) == Summary(1, 0.5, None, None, None)


def test_welch_by_hand():
    """Two samples of four: means 5 and 3, variances 20/3 and 5/3; and one without spread, judged by the other's."""
    difference = statistics.welch([2, 4, 6, 8], [1.5, 2.5, 3.5, 4.5])
    error, freedom = math.sqrt(20 / 12 + 5 / 12), (25 / 12) ** 2 / ((20 / 12) ** 2 / 3 + (5 / 12) ** 2 / 3)
    half = pytest.approx(stats.t.ppf(0.975, freedom) * error)
    assert (difference.difference, difference.high - 2, 2 - difference.low) == (2, half, half)
    assert difference.p == pytest.approx(2 * stats.t.sf(2 / error, freedom))
    difference = statistics.welch([0.1, 0.1, 0.1], [0.3, 0.31, 0.32])
    half = T_2 * 0.01 / math.sqrt(3)
    assert (difference.low, difference.high) == (pytest.approx(-0.21 - half), pytest.approx(-0.21 + half))


def test_the_paired_test_uses_the_pairs():
    """Differences 0.01, 0.015, 0.008: mean 0.011, squared deviations 26e-6; quantile of two degrees of freedom from tables."""
    first, second = [0.40, 0.42, 0.47], [0.39, 0.405, 0.462]
    result = statistics.paired(first, second)
    assert result.difference == pytest.approx(0.011)
    assert result.high - 0.011 == pytest.approx(T_2 * math.sqrt(26e-6 / 2 / 3), rel=1e-6)
    assert result.low == pytest.approx(0.022 - result.high)
    assert result.p < statistics.welch(first, second).p


@pytest.mark.parametrize("test", [statistics.welch, statistics.paired])
def test_without_spread_nothing_is_judged(test):
    assert test([0.1, 0.1, 0.1], [0.3, 0.3, 0.3]) == Difference(*[pytest.approx(-0.2)] * 3, None)


def test_a_difference_can_be_turned_round():
    assert Difference(2.0, 1.0, 3.5, 0.1).reverse() == Difference(-2.0, -3.5, -1.0, 0.1)


def test_mcnemar_counts_the_coin_tosses():
    """Five heads in six tosses: probabilities 1, 6, 15, 20, ... of 64."""
    result = statistics.mcnemar(5, 1)
    assert result.exact == pytest.approx(2 * 7 / 64)
    assert result.mid == pytest.approx(2 * (1 + 6 / 2) / 64)
    assert statistics.mcnemar(1, 5) == Discordance(1, 5, result.exact, result.mid)
    for number in (0, 1, 7):
        assert statistics.mcnemar(number, number) == Discordance(number, number, 1.0, 1.0)


def test_over_images_is_the_square_root_of_mcnemars_statistic():
    """For one network each, z squared is (b - c)^2 / (b + c - (b - c)^2 / n), up to n - 1 for n."""
    first, second = np.arange(1000) < 600, (np.arange(1000) >= 80) & (np.arange(1000) < 640)
    result = statistics.over_images(first[None], second[None])
    assert result.difference == pytest.approx(0.04)
    z = math.sqrt((80 - 40) ** 2 / (80 + 40 - 40**2 / 1000) * 999 / 1000)
    assert result.p == pytest.approx(2 * stats.norm.sf(z))
    assert result.high - result.low == pytest.approx(2 * 1.959964 * 0.04 / z, rel=1e-6)


def test_over_images_averages_the_networks_of_an_image():
    first = np.array([[True, True, False, False], [True, False, False, True]])
    second = np.array([[True, False, False, False]])
    assert statistics.over_images(first, second).difference == pytest.approx(np.mean([0, 0.5, 0, 0.5]))
    assert statistics.over_images(second, second).p is None  # networks that agree on every image


def test_newcombe_of_the_worked_example():
    """56 of 70 against 48 of 80 (Newcombe, 1998, table II, method 10)."""
    result = statistics.proportions((56 / 70, 70), (48 / 80, 80))
    assert (round(result.low, 4), round(result.high, 4)) == (0.0524, 0.3339)
    z = 0.2 / math.sqrt(104 / 150 * 46 / 150 * (1 / 70 + 1 / 80))
    assert result.p == pytest.approx(2 * stats.norm.sf(z))


def test_holm_of_a_worked_example():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []
    # Whatever the order.
    values = [0.2, 0.01, 0.049]
    expected = dict(zip(values, statistics.holm(values), strict=True))
    for order in itertools.permutations(values):
        assert statistics.holm(order) == [expected[value] for value in order]


def test_rank_correlation_sees_order_alone():
    assert statistics.rank_correlation([1, 2, 10], [5, 4, -100]) == pytest.approx(-1)
    assert statistics.rank_correlation([1, 1, 1], [1, 2, 3]) is None


@pytest.mark.parametrize(("counts", "factor"), [((2, 10), 1), ((2, 5), 3), ((3, 4), 5), ((2, 2), 1), ((6, 12), 3)])
def test_no_more_than_five_in_a_hundred_differences_are_found_where_there_are_none(counts, factor):
    draws, studies = np.random.default_rng(0), 2000
    scales = (factor, 1)
    found = 0
    for _ in range(studies):
        first, second = (scale * draws.normal(size=count) for scale, count in zip(scales, counts, strict=True))
        found += statistics.welch(first, second).p < 0.05
    assert found / studies < 0.05 + 2 * (0.05 * 0.95 / studies) ** 0.5
