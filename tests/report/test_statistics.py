"""The statistics, against worked examples from textbooks and papers, and against formulas in other form."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from wrn_jax.report import statistics
from wrn_jax.report.statistics import Difference


def test_summary_of_three_values_by_hand():
    found = statistics.summarise([0.42, 0.43, 0.44])
    assert found.n == 3
    assert found.mean == pytest.approx(0.43)
    assert found.sd == pytest.approx(0.01)
    half = 4.302653 * 0.01 / math.sqrt(3)  # Student's t for two degrees of freedom, from tables
    assert (found.low, found.high) == (pytest.approx(0.43 - half, abs=1e-6), pytest.approx(0.43 + half, abs=1e-6))


def test_one_value_has_no_spread():
    assert statistics.summarise([0.5]) == statistics.Summary(1, 0.5, None, None, None)


def test_welch_by_hand():
    """Two samples of four: means 5 and 3, variances 20/3 and 5/3."""
    found = statistics.welch([2, 4, 6, 8], [1.5, 2.5, 3.5, 4.5])
    error, freedom = math.sqrt(20 / 12 + 5 / 12), (25 / 12) ** 2 / ((20 / 12) ** 2 / 3 + (5 / 12) ** 2 / 3)
    assert found.difference == 2
    assert found.p == pytest.approx(2 * stats.t.sf(2 / error, freedom))
    assert found.high - 2 == pytest.approx(stats.t.ppf(0.975, freedom) * error)
    assert found.low == pytest.approx(4 - found.high)


def test_the_paired_test_uses_the_pairs():
    """Differences 0.01, 0.015, 0.008: mean 0.011, squared deviations 26e-6; quantile of two degrees of freedom from tables."""
    first, second = [0.40, 0.42, 0.47], [0.39, 0.405, 0.462]
    found = statistics.paired(first, second)
    assert found.difference == pytest.approx(0.011)
    assert found.high - 0.011 == pytest.approx(4.302653 * math.sqrt(26e-6 / 2 / 3), rel=1e-6)
    assert found.low == pytest.approx(0.022 - found.high)
    assert found.p < statistics.welch(first, second).p


def test_one_sample_without_spread_is_judged_by_the_other():
    found = statistics.welch([0.1, 0.1, 0.1], [0.3, 0.31, 0.32])
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert (found.low, found.high) == (pytest.approx(-0.21 - half, abs=1e-6), pytest.approx(-0.21 + half, abs=1e-6))


@pytest.mark.parametrize("test", [statistics.welch, statistics.paired])
def test_without_spread_nothing_is_judged(test):
    assert test([0.1, 0.1, 0.1], [0.3, 0.3, 0.3]) == Difference(
        pytest.approx(-0.2), pytest.approx(-0.2), pytest.approx(-0.2), None
    )


def test_a_difference_can_be_turned_round():
    assert Difference(2.0, 1.0, 3.5, 0.1).reverse() == Difference(-2.0, -3.5, -1.0, 0.1)


def test_mcnemar_counts_the_coin_tosses():
    """Five heads in six tosses: probabilities 1, 6, 15, 20, ... of 64."""
    found = statistics.mcnemar(5, 1)
    assert found.exact == pytest.approx(2 * 7 / 64)
    assert found.mid == pytest.approx(2 * (1 + 6 / 2) / 64)
    assert statistics.mcnemar(1, 5) == statistics.Discordance(1, 5, found.exact, found.mid)


@pytest.mark.parametrize("number", [0, 1, 7])
def test_mcnemar_sees_no_difference_between_equals(number):
    found = statistics.mcnemar(number, number)
    assert (found.exact, found.mid) == (1.0, pytest.approx(1.0))


def test_over_images_is_the_square_root_of_mcnemars_statistic():
    """For one network each, z squared is (b - c)^2 / (b + c - (b - c)^2 / n), up to n - 1 for n."""
    first, second = np.arange(1000) < 600, (np.arange(1000) >= 80) & (np.arange(1000) < 640)
    found = statistics.over_images(first[None], second[None])
    assert found.difference == pytest.approx(0.04)
    z = math.sqrt((80 - 40) ** 2 / (80 + 40 - 40**2 / 1000) * 999 / 1000)
    assert found.p == pytest.approx(2 * stats.norm.sf(z))
    assert found.high - found.low == pytest.approx(2 * 1.959964 * 0.04 / z, rel=1e-6)


def test_over_images_averages_the_networks_of_an_image():
    first = np.array([[True, True, False, False], [True, False, False, True]])
    second = np.array([[True, False, False, False]])
    found = statistics.over_images(first, second)
    assert found.difference == pytest.approx(np.mean([0, 0.5, 0, 0.5]))


def test_networks_that_agree_on_every_image_are_not_judged():
    first = np.array([[True, False, True]])
    assert statistics.over_images(first, first).p is None


def test_newcombe_of_the_worked_example():
    """56 of 70 against 48 of 80 (Newcombe, 1998, table II, method 10)."""
    found = statistics.proportions((56 / 70, 70), (48 / 80, 80))
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)
    z = 0.2 / math.sqrt(104 / 150 * 46 / 150 * (1 / 70 + 1 / 80))
    assert found.p == pytest.approx(2 * stats.norm.sf(z))


def test_holm_of_a_worked_example():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_holm_does_not_depend_on_the_order():
    values = [0.2, 0.01, 0.049]
    expected = dict(zip(values, statistics.holm(values), strict=True))
    for order in itertools.permutations(values):
        assert statistics.holm(order) == [expected[value] for value in order]


def test_rank_correlation_sees_order_alone():
    assert statistics.rank_correlation([1, 2, 10], [5, 4, -100]) == pytest.approx(-1)
    assert statistics.rank_correlation([1, 1, 1], [1, 2, 3]) is None
