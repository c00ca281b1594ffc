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


def test_a_common_spread_by_hand():
    """Squares of 2 about 2 and of 0.5 about 1.5, with three degrees of freedom; quantiles of chi-square from tables."""
    spread = statistics.pooled_spread([[1, 2, 3], [1, 2], [7]])
    assert spread.sd == pytest.approx(math.sqrt(2.5 / 3))
    assert spread.low == pytest.approx(math.sqrt(2.5 / 9.3484), rel=1e-4)
    assert spread.high == pytest.approx(math.sqrt(2.5 / 0.215795), rel=1e-4)
    with pytest.raises(ValueError, match="no spread"):
        statistics.pooled_spread([[1], [2]])


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
    low, high = statistics.proportions((56 / 70, 70), (48 / 80, 80))
    assert (round(low, 4), round(high, 4)) == (0.0524, 0.3339)


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


def test_power_of_published_examples():
    """Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, chapter 2; the examples of R's power.t.test."""
    assert [statistics.seeds_needed(effect, 1) for effect in (0.2, 0.5, 0.8)] == [394, 64, 26]
    assert statistics.seeds_needed(-1, 1, 0.9) == 23
    assert statistics.seeds_needed(0.5, 1, paired=True) == 34
    assert statistics.power_of(20, 1, 1) == pytest.approx(
        0.8689528, abs=1e-3
    )  # of the pooled test, which Welch's is a bit below
    assert statistics.power_of(20, 1, 1, paired=True) == pytest.approx(0.9886, abs=1e-4)


@pytest.mark.parametrize("paired", [False, True])
def test_power_seeds_and_detectable_differences_agree(paired):
    for seeds in (2, 3, 12):
        smallest = statistics.detectable(seeds, 0.4, 0.9, paired=paired)
        assert statistics.power_of(seeds, smallest, 0.4, paired=paired) == pytest.approx(0.9)
        assert statistics.seeds_needed(1.001 * smallest, 0.4, 0.9, paired=paired) == seeds
        assert statistics.detectable(seeds, 0.4, 0.9, paired=paired, significance=0.01) > smallest
    assert statistics.seeds_needed(1e-9, 0.0) == 2
    # Of no difference it is the error rate, for paired tests exactly.
    assert statistics.power_of(4, 0.0, 1.0, paired=paired) == pytest.approx(0.05, abs=1e-9 if paired else 0.015)
    with pytest.raises(ValueError, match="not shown"):
        statistics.seeds_needed(0.0, 1.0)


@pytest.mark.parametrize(("seeds", "paired"), [(2, True), ((2, 3), False)])
def test_what_no_difference_shows_is_detectable_by_none(seeds, paired):
    strict = 0.05 / 20 / 66
    assert statistics.power_of(seeds, 1e9, 1.0, paired=paired, significance=strict) < 0.8
    assert statistics.detectable(seeds, 0.3, paired=paired, significance=strict) == math.inf
    assert statistics.detectable(seeds, 0.0, paired=paired, significance=strict) == 0.0


@pytest.mark.parametrize("seeds", [(2, 3), (3, 4), (5, 3), (3, 10), (6, 8)])
def test_power_of_unequal_numbers_is_that_of_the_test_that_decides(seeds):
    difference = statistics.detectable(seeds, 1.0)
    assert statistics.power_of(seeds, difference, 1.0) == pytest.approx(0.8)
    assert statistics.power_of(seeds[::-1], difference, 1.0) == pytest.approx(0.8)
    draws, studies = np.random.default_rng(0), 40_000
    first = draws.normal(difference, size=(seeds[0], studies))
    second = draws.normal(size=(seeds[1], studies))
    if min(seeds) < statistics.FEW:
        error = np.sqrt(first.var(axis=0, ddof=1) / seeds[0] + second.var(axis=0, ddof=1) / seeds[1])
        p = 2 * stats.t.sf(abs(first.mean(axis=0) - second.mean(axis=0)) / error, min(seeds) - 1)
    else:
        p = stats.ttest_ind(first, second, axis=0, equal_var=False).pvalue
    assert statistics.welch(first[:, 0], second[:, 0]).p == pytest.approx(p[0])
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_boundaries_of_looks_as_published():
    """Lan & DeMets with the spending function like O'Brien and Fleming's, two-sided 5 %, equal steps; tabled in many places."""
    tables = {2: [2.963, 1.969], 3: [3.710, 2.511, 1.993], 5: [4.877, 3.357, 2.680, 2.290, 2.031]}
    for looks, boundaries in tables.items():
        levels = statistics.levels_at_looks([look / looks for look in range(1, looks + 1)])
        assert stats.norm.isf(np.array(levels) / 2) == pytest.approx(boundaries, abs=5e-4)
    assert statistics.levels_at_looks([1.0]) == pytest.approx([0.05])
    for wrong in ([0.5, 0.5], [0.5, 1.1], [0.0, 1.0]):
        with pytest.raises(ValueError, match="rise within"):
            statistics.levels_at_looks(wrong)


def test_a_p_value_after_looks_is_judged_as_its_boundary_judges_it():
    fractions = (1 / 3, 2 / 3, 1.0)
    for number in range(1, 4):
        level = statistics.last_level(fractions[:number])
        assert statistics.after_looks(level, fractions[:number]) == pytest.approx(0.05, rel=0.01)
        assert statistics.after_looks(1.0, fractions[:number]) == pytest.approx(1.0)
    assert statistics.after_looks(0.03, [1.0]) == 0.03
    assert statistics.last_level([1.0]) == 0.05
    assert statistics.after_looks(0.0, fractions) < 1e-5


def test_many_looks_together_keep_to_the_error_of_one():
    """Two recipes, twenty seeds, a look after each from the second on; 200,000 studies at once, so 5.2 % would be seen."""
    runs = np.random.default_rng(1).normal(size=(2, 200_000, 20))
    false = np.zeros(200_000, bool)
    for seeds in range(2, 21):
        level = statistics.last_level([number / 20 for number in range(2, seeds + 1)])
        first, second = runs[:, :, :seeds]
        false |= stats.ttest_ind(first, second, axis=1, equal_var=False).pvalue < level
    assert 0.048 < false.mean() < 0.05


def test_power_and_error_with_looks_and_holm_in_simulated_studies():
    """Three recipes, looks after 3, 6 and 10 seeds, Welch's test; 20,000 studies at once."""
    draws, studies, looks = np.random.default_rng(1), 20_000, (3, 6, 10)
    runs = draws.normal(size=(3, studies, 10))
    false = np.zeros(studies, bool)
    for number in range(1, 4):
        seeds, fractions = looks[number - 1], [look / 10 for look in looks[:number]]
        p = np.array([
            stats.ttest_ind(runs[a, :, :seeds], runs[b, :, :seeds], axis=1, equal_var=False).pvalue
            for a, b in itertools.combinations(range(3), 2)
        ])  # fmt: skip
        # Holm shows something where the smallest of three p values, adjusted, times three is below the significance.
        false |= 3 * np.array([statistics.after_looks(smallest, fractions) for smallest in p.min(axis=0)]) < 0.05
    assert false.mean() < 0.05
    for paired, test in ((False, stats.ttest_ind), (True, stats.ttest_rel)):
        for seeds in (3, 10):
            difference = statistics.detectable(seeds, 1.0, paired=paired)
            spread = math.sqrt(0.5) if paired else 1.0  # so that the differences by seed have a spread of 1
            first, second = spread * runs[0, :, :seeds] + difference, spread * runs[1, :, :seeds]
            p = test(first, second, axis=1, **({} if paired else {"equal_var": False})).pvalue
            assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.01)
