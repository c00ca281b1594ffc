"""The configurations side by side."""

import contextlib
import dataclasses
import re

import pytest

from tests import sample_runs
from tests.sample_runs import cells
from wrn_jax.config.timeline import Timeline
from wrn_jax.report import published_runs
from wrn_jax.report.runs import Group, Run, recipe_keys
from wrn_jax.report.sections import configuration
from wrn_jax.runtime.errors import UserError


def test_what_differs_is_marked_and_nothing_else(tmp_path):
    groups = [
        sample_runs.recipe(tmp_path, "a", [[0.1] * 5]),
        sample_runs.recipe(
            tmp_path,
            "b",
            [[0.1] * 5],
            recipe__dropout=0.1,
            optimizer__clip_norm=None,
            **{"augmentation_levels__full.rotate": 1.0},
        ),
    ]
    table = configuration.table(groups)
    assert table.columns == ["setting", "a", "b"]
    marked = {table.rows[index][0] for index in table.marked}
    assert marked == {"dropout", "gradient clipping (global norm)", "augmentation_levels.full.rotate"}
    assert cells(table, "dropout") == {
        "setting": "dropout",
        "a": "0.3 -> 0.2 (epoch 3 + 2 updates) -> 0.1 (epoch 5)",
        "b": "0.1 (constant)",
    }
    assert cells(table, "gradient clipping (global norm)")["b"] == "off"
    assert cells(table, "augmentation_levels.full.rotate") == {
        "setting": "augmentation_levels.full.rotate",
        "a": "15.0",
        "b": "1.0",
    }
    assert cells(table, "parameters")["a"] == "83,700"
    assert cells(table, "epochs")["a"] == "5"


def test_a_hold_out_and_seeds_are_told(tmp_path):
    group = sample_runs.recipe(tmp_path, "a", [[0.1] * 5, [0.1] * 5], valid=[0.1] * 5, data__validation_size=100)
    table = configuration.table([group])
    assert cells(table, "training images")["a"] == "300, 100 more held out"
    assert cells(table, "best epoch chosen on")["a"] == "the hold-out"
    assert cells(table, "seeds")["a"] == "0, 1"
    assert not table.marked


def test_logs_have_what_ran_and_what_was_published():
    table = configuration.table(sample_runs.published())
    row = cells(table, "learning rate as published, which never ran")
    assert row["session02"] == "linear 0.01 to 0.1 over 5 epochs -> warm restarts 0.1 to 0.0001 every 25 epochs (epoch 6)"
    assert "warm restarts 0.01 to 0.0001 every 25 steps" in cells(table, "learning rate")["session02"]
    assert cells(table, "highest rate after the warm-up")["session04"] == "0.01"
    assert cells(table, "new cycles of the rate")["session02"] == "744"  # as counted in the log's description


def test_of_a_csv_nothing_is_recorded(tmp_path):
    csv = Group("csv", (Run("csv", "csv", tuple(published_runs.rows("session02"))),))
    table = configuration.table([csv, sample_runs.published()[0]])
    assert cells(table, "network")["csv"] == "not recorded"
    assert cells(table, "best epoch chosen on")["csv"] == "the test set"


CANDIDATES = (7, 16, 2, 0.5, 0.25, True, False, "float16", "cifar10", [3], {"epoch 1": 0.05}, {"epoch 1": "reduced"}, "a")
"""Values of which every key takes one."""


def changed(config, key):
    """The configuration with another value of the key, the first that it takes."""
    for value in CANDIDATES:
        with contextlib.suppress(UserError):
            other = config.override({key: value})
            if other != config:
                return other
    raise AssertionError(f"{key}: no value is taken; add one")


@pytest.mark.slow
def test_every_key_in_which_recipes_differ_is_shown(tmp_path):
    (first,) = sample_runs.recipe(tmp_path, "a", [[0.1] * 5]).runs
    keys = dict.fromkeys(re.sub(r"\.epoch \d+.*", "", key) for key in recipe_keys(first.config))  # a schedule is one
    assert {"recipe.dropout", "optimizer.momentum", "model.batch_norm_groups", "augmentation_levels.full.rotate"} <= keys.keys()
    for key in keys:
        config, timeline = changed(first.config, key), first.timeline
        if key.startswith("recipe."):
            timeline = Timeline(config.recipe, config.augmentation_levels, timeline.steps_per_epoch)
        second = dataclasses.replace(first, config=config, timeline=timeline)
        assert configuration.table([Group("a", (first,)), Group("b", (second,))]).marked, key


def test_a_key_without_a_row_of_its_own_is_shown(tmp_path, monkeypatch):
    """A new key need not be entered anywhere."""
    (run,) = sample_runs.recipe(tmp_path, "a", [[0.1] * 5]).runs
    kinds = iter([{"optimizer.kind": "sgd"}, {"optimizer.kind": "lion"}])
    monkeypatch.setattr(configuration, "recipe_keys", lambda config: recipe_keys(config) | next(kinds))
    table = configuration.table([Group("a", (run,)), Group("b", (run,))])
    assert cells(table, "optimizer.kind") == {"setting": "optimizer.kind", "a": "sgd", "b": "lion"}
    assert {table.rows[index][0] for index in table.marked} == {"optimizer.kind"}
