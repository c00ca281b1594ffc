"""What a study could show, of the runs that it had in the end."""

import dataclasses
import math

import pytest

from tests import sample_runs
from wrn_jax.report.runs import Group
from wrn_jax.report.statistics import Spread
from wrn_jax.studies import outlook, power


@pytest.fixture
def runs(tmp_path):
    """Recipes of three and of four runs, a point apart."""
    curves = [[0.1, 0.2, 0.3, 0.4, 0.5 + number / 100] for number in range(4)]
    return sample_runs.recipe(tmp_path, "a", curves[:3]), sample_runs.recipe(tmp_path, "b", curves, recipe__dropout=0.1)


def test_it_is_that_of_the_two_recipes_that_are_compared_least_sharply(runs):
    three, four = runs
    assert power.measured([four, three, four], 3, [1.0], None).seeds == (3, 4)  # a stricter test than of 3 and 3
    found = power.measured([three, three], 1, [1.0], None)
    assert found.seeds == (3, 3)
    assert "so 3 seeds of each recipe show a true difference of" in power.sentence(found)
    unequal = power.measured([three, four], 1, [1.0], None)
    assert "so 3 seeds of one recipe and 4 of another show" in power.sentence(unequal)
    assert unequal.detectable(1.0) > found.detectable(1.0)
    assert power.measured([four], 1, [1.0], None).seeds == (4, 4)  # beside runs of another program


def test_no_difference_is_told_that_accuracies_cannot_have(runs):
    found = power.measured([runs[0], runs[0]], 1, [1.0], None)
    text = power.sentence(dataclasses.replace(found, spread=Spread(10.0, 5.0, 200.0)))
    assert "to more than 100 within that interval" in text
    assert "e+" not in text


def test_of_many_recipes_few_seeds_show_nothing_and_it_is_said(runs):
    (line,) = outlook.resolution(12, 2, None, 0.3)
    assert "points with 80% power (at p < " in line
    assert "of more than 100 by pairs of a seed" in line

    three = runs[0]
    two = Group(three.name, three.runs[:2])
    found = power.measured([three] * 11 + [two], 66, [2 / 3, 1.0], 5.0)
    assert found.seeds == (2, 3)
    assert found.detectable(1.0) == math.inf
    assert "of another show a true difference of more than 100 points in four of five" in power.sentence(found)
    plot = power.plot(found)
    assert (plot.series[0].x[-1], [x for x, _ in plot.marks]) == (100.0, [5.0])
