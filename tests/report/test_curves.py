"""The plots as data: lines, bands, gaps and marks."""

import math

import pytest

from tests import sample_runs
from wrn_jax.report import published_runs
from wrn_jax.report.runs import Group, Run
from wrn_jax.report.sections import curves


def by_name(plots):
    return {plot.name: plot for plot in plots}


def test_every_recipe_has_its_place_in_every_plot(tmp_path):
    csv = Group("csv", (Run("csv", "csv", tuple(published_runs.rows("session02"))),))
    groups = [sample_runs.recipe(tmp_path, "a", [[0.1] * 5]), csv]
    plots = [*curves.curves(groups), *curves.hyperparameters(groups)]
    assert all([series.name for series in plot.series] == ["a", "csv"] for plot in plots)
    assert len({plot.name for plot in plots}) == len(plots)
    assert all(plot.x_label and plot.y_label and plot.description for plot in plots)
    assert math.isnan(by_name(plots)["dropout"].series[1].y[0])


def test_seeds_are_a_mean_with_a_band(tmp_path):
    group = sample_runs.recipe(tmp_path, "a", [[0.1, 0.2, 0.3, 0.4, 0.5], [0.3, 0.4, 0.5, 0.6, 0.7]])
    (series,) = by_name(curves.curves([group]))["test_accuracy"].series
    assert series.x == [1, 2, 3, 4, 5]
    assert series.y == pytest.approx([20, 30, 40, 50, 60])
    assert series.low == pytest.approx([10, 20, 30, 40, 50])
    assert series.high == pytest.approx([30, 40, 50, 60, 70])
    (gap,) = by_name(curves.curves([group]))["gap"].series
    assert gap.y == pytest.approx([-1] * 5)


def test_one_run_has_no_band(tmp_path):
    (series,) = by_name(curves.curves([sample_runs.recipe(tmp_path, "a", [[0.1] * 5])]))["test_loss"].series
    assert (series.low, series.high) == (None, None)


def test_what_nobody_measured_is_not_drawn(tmp_path):
    assert "valid_accuracy" not in by_name(curves.curves([sample_runs.recipe(tmp_path, "a", [[0.1] * 5])]))
    assert "train_loss" not in by_name(curves.curves(sample_runs.published()))
    held_out = sample_runs.recipe(tmp_path, "b", [[0.1] * 5], valid=[0.2] * 5, data__validation_size=100)
    assert by_name(curves.curves([held_out]))["valid_accuracy"].series[0].y == pytest.approx([20] * 5)


def test_transitions_are_marked_once_each():
    found = curves.marks(sample_runs.published())
    assert found == tuple(sorted(found))
    assert (40.0, "mixup alpha 0.2 -> 0.15, from epoch 41 on (session04)") in found
    assert (80.0, "dropout 0.2 -> 0.1, from epoch 81 on (session04)") in found


def test_a_transition_that_recipes_share_is_told_once(tmp_path):
    groups = [
        sample_runs.recipe(tmp_path, name, [[0.1] * 5], recipe__mixup_alpha=alpha) for name, alpha in (("a", 0.1), ("b", 0.2))
    ]
    assert (4.0, "dropout 0.2 -> 0.1, from epoch 5 on (a, b)") in curves.marks(groups)


def test_the_rate_is_drawn_within_the_epochs_and_at_the_evaluations():
    plots = by_name(curves.hyperparameters(sample_runs.published()))
    series = plots["learning_rate"].series[1]
    assert (series.low[98], series.high[98]) == (pytest.approx(1e-5), pytest.approx(0.01))
    assert series.low[98] < series.y[98] < series.high[98]
    assert plots["rate_at_evaluation"].series[1].y[98:] == pytest.approx([0.000148, 0.009985], abs=1e-6)
    assert plots["learning_rate"].log_y
    assert not plots["dropout"].log_y


def test_a_rate_of_zero_keeps_the_axis_linear(tmp_path):
    group = sample_runs.recipe(tmp_path, "a", [[0.1] * 5], recipe__learning_rate={"epoch 1": 0.1, "epoch 81": 0.0})
    assert not by_name(curves.hyperparameters([group]))["learning_rate"].log_y


def test_what_moves_is_drawn_and_what_does_not_is_not(tmp_path):
    plots = by_name(curves.hyperparameters(sample_runs.published()))
    assert plots["dropout"].series[1].x == list(range(101))
    assert plots["dropout"].series[1].y == pytest.approx([0.3] * 51 + [0.2] * 30 + [0.1] * 20)
    assert plots["augmentation"].series[1].y == [0] * 41 + [1] * 30 + [2] * 30
    assert "0 full, 1 reduced, 2 minimal" in plots["augmentation"].title
    stepped = {name for name, plot in plots.items() if plot.stepped}
    assert stepped == {"dropout", "mixup_alpha", "label_smoothing", "augmentation"}
    still = sample_runs.recipe(tmp_path, "a", [[0.1] * 5], recipe__dropout=0.1, recipe__augmentation="full")
    assert not {"dropout", "augmentation"} & by_name(curves.hyperparameters([still])).keys()


def test_a_phase_that_begins_within_an_epoch_is_drawn_where_it_begins(tmp_path):
    half = {"epoch 1": 0.3, "epoch 51": 0.2}  # at a twentieth of the length: after two and a half epochs
    moving = sample_runs.recipe(tmp_path, "a", [[0.1] * 5], recipe__dropout=half)
    still = sample_runs.recipe(tmp_path, "b", [[0.1] * 5], recipe__dropout=0.1)
    first, second = by_name(curves.hyperparameters([moving, still]))["dropout"].series
    assert first.x == second.x == [0, 1, 2, 2.5, 3, 4, 5]
    assert first.y == pytest.approx([0.3, 0.3, 0.3, 0.3, 0.2, 0.2, 0.2])
    assert second.y == pytest.approx([0.1] * 7)
