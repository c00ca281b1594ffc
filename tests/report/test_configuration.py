"""The configurations side by side."""

import pytest

from tests import sample_runs
from tests.sample_runs import cells
from wrn_jax.config import FREE_ON_RESUME
from wrn_jax.config import keys as config_keys
from wrn_jax.report import published_runs
from wrn_jax.report.runs import Group, Run
from wrn_jax.report.sections import configuration


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


CHANGES = {
    "model.depth": 16, "model.widen_factor": 2, "model.num_classes": 101, "model.batch_norm_groups": 2,
    "data.name": "cifar100", "data.validation_size": 100, "data.validation_seed": 1, "data.embedded_train": 399,
    "data.embedded_test": 300, "data.embedded_seed": 1, "recipe.epochs": 95, "recipe.scale": 2.0, "recipe.batch_size": 10,
    "recipe.learning_rate": 0.5, "recipe.dropout": 0.5, "recipe.mixup_alpha": 0.5, "recipe.label_smoothing": 0.5,
    "recipe.augmentation": "off", "recipe.checkpoint_epochs": [2], "optimizer.momentum": 0.5, "optimizer.weight_decay": 0.5,
    "optimizer.clip_norm": 0.5, "precision": "bfloat16", "early_stopping_patience": 4, "augmentation_levels.full.rotate": 1.0,
}  # fmt: skip
"""Another value for every key that makes a recipe."""


def test_every_key_is_tried():
    keys = {key for key, _ in config_keys() if key not in ("seed", *FREE_ON_RESUME) and not key.startswith("augmentation_l")}
    assert keys - {"silence"} == set(CHANGES) - {"augmentation_levels.full.rotate"}


@pytest.mark.parametrize("key", CHANGES)
def test_every_key_that_differs_is_shown(tmp_path, key):
    other = {key.replace(".", "__", 1): CHANGES[key]}
    groups = [sample_runs.recipe(tmp_path, "a", [[0.1] * 5]), sample_runs.recipe(tmp_path, "b", [[0.1] * 5], **other)]
    assert configuration.table(groups).marked


def test_a_key_of_the_optimiser_without_a_row_of_its_own_is_shown(tmp_path, monkeypatch):
    keys = iter([{"optimizer.nesterov": True}, {"optimizer.nesterov": False}])
    monkeypatch.setattr(configuration, "recipe_keys", lambda run: next(keys))
    table = configuration.table([sample_runs.recipe(tmp_path, name, [[0.1] * 5]) for name in "ab"])
    assert cells(table, "optimizer.nesterov") == {"setting": "optimizer.nesterov", "a": "True", "b": "False"}
