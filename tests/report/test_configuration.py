"""The configurations side by side."""

import contextlib
import dataclasses
import re

import pytest

from tests import sample_runs
from tests.sample_runs import cells
from wrn_jax.config.timeline import Timeline
from wrn_jax.report.runs import Group, recipe_keys
from wrn_jax.report.sections import configuration
from wrn_jax.runtime.errors import UserError


def test_what_differs_is_marked_and_nothing_else(tmp_path):
    changes = {"recipe__dropout": 0.1, "optimizer__clip_norm": None, "augmentation_levels__full.rotate": 1.0}
    groups = [sample_runs.recipe(tmp_path, name, [[0.1] * 5], **more) for name, more in (("a", {}), ("b", changes))]
    table = configuration.table(groups)
    assert table.columns == ["setting", "a", "b"]
    assert [table.rows[index] for index in sorted(table.marked)] == [
        ["dropout", "0.3 -> 0.2 (epoch 3 + 2 updates) -> 0.1 (epoch 5)", "0.1 (constant)"],
        ["gradient clipping (global norm)", "1", "off"],
        ["augmentation_levels.full.rotate", "15.0", "1.0"],
    ]
    assert (cells(table, "parameters")["a"], cells(table, "epochs")["a"]) == ("83,700", "5")


def test_a_hold_out_and_seeds_are_told(tmp_path):
    group = sample_runs.recipe(tmp_path, "a", [[0.1] * 5, [0.1] * 5], valid=[0.1] * 5, data__validation_size=100)
    table = configuration.table([group])
    values = [cells(table, row)["a"] for row in ("training images", "best epoch chosen on", "seeds")]
    assert values == ["300, 100 more held out", "the hold-out", "0, 1"]
    assert not table.marked


def test_logs_have_what_ran_and_a_log_alone_nothing():
    table = configuration.table([*sample_runs.published(), sample_runs.log_alone()])
    assert "warm restarts 0.01 to 0.0001 every 25 steps" in cells(table, "learning rate")["session02"]
    assert cells(table, "highest rate after the warm-up")["session04"] == "0.01"
    assert cells(table, "new cycles of the rate")["session02"] == "744"  # as counted in the log's description
    assert cells(table, "network")["csv"] == "not recorded"
    assert cells(table, "best epoch chosen on")["csv"] == "the test set"


CANDIDATES = (
    7, 16, 2, 0.5, 0.25, True, False, "float16", "cifar10", "kernels", [3], {"epoch 1": 0.05}, {"epoch 1": "reduced"}, "a",
    ["a"],
)  # fmt: skip
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
        if key.startswith(("recipe.", "optimizer.")):
            timeline = Timeline(config, timeline.steps_per_epoch)
        second = dataclasses.replace(first, config=config, timeline=timeline)
        assert configuration.table([Group("a", (first,)), Group("b", (second,))]).marked, key


def test_a_key_without_a_row_of_its_own_is_shown(tmp_path, monkeypatch):
    """A new key need not be entered anywhere."""
    (run,) = sample_runs.recipe(tmp_path, "a", [[0.1] * 5]).runs
    kinds = iter([{"optimizer.kind": "sgd"}, {"optimizer.kind": "lion"}])
    monkeypatch.setattr(configuration, "recipe_keys", lambda config: recipe_keys(config) | next(kinds))
    table = configuration.table([Group("a", (run,)), Group("b", (run,))])
    assert [table.rows[index] for index in table.marked] == [["optimizer.kind", "sgd", "lion"]]
