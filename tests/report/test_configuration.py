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

WORDS_OF_FULL = (
    "flip 50 %, shift 6.25 % + scale 10 % + rotate {}° in 50 %, cutout 8 in 50 %, brightness 20 % + contrast 20 % in 30 %, "
    "hue 10 + saturation 20 + value 10 in 30 %"
)


def test_what_differs_is_marked_and_nothing_else(tmp_path):
    changes = {"recipe__dropout": 0.1, "optimizer__clip_norm": None, "augmentation_levels__full.rotate": 1.0}
    groups = [sample_runs.recipe(tmp_path, name, [[0.1] * 5], **more) for name, more in (("a", {}), ("b", changes))]
    table = configuration.table(groups)
    assert table.columns == ["setting", "a", "b"]
    assert [table.rows[index] for index in sorted(table.marked)] == [
        ["dropout", "0.3 -> 0.2 (epoch 3 + 2 updates) -> 0.1 (epoch 5)", "0.1 (constant)"],
        ["augmentation level full", *(WORDS_OF_FULL.format(degrees) for degrees in (15, 1))],
        ["gradient clipping (global norm)", "1", "off"],
    ]
    assert (cells(table, "parameters")["a"], cells(table, "epochs")["a"]) == ("83,700", "5")


def test_levels_are_told_in_words_one_recipe_s_or_several(tmp_path):
    mine = {"flip_probability": 0.5, "crop_probability": 1.0, "crop_padding": 4.0}
    more = {"augmentation_levels__mine": mine, "recipe__augmentation": "mine"}
    a, b = sample_runs.recipe(tmp_path, "a", [[0.1] * 5]), sample_runs.recipe(tmp_path, "b", [[0.1] * 5], **more)
    alone, both = configuration.table([b]), configuration.table([a, b])
    assert ["augmentation level mine", "crop 4, flip 50 %"] in alone.rows
    assert ["augmentation level mine", "-", "crop 4, flip 50 %"] in both.rows
    assert ["augmentation level full", WORDS_OF_FULL.format(15), "-"] in both.rows
    labels = [label for label, *_ in both.rows]
    place = labels.index("augmentation")
    assert labels[place + 1 : place + 5] == [f"augmentation level {name}" for name in ("full", "reduced", "minimal", "mine")]
    assert not any("level off" in label or label.startswith("augmentation_levels") for label in labels)


def test_a_strength_that_no_words_tell_has_its_key(tmp_path):
    changes = {"augmentation_levels__full.wide_ranges": 1.0}  # of no automatic operation
    groups = [sample_runs.recipe(tmp_path, name, [[0.1] * 5], **more) for name, more in (("a", {}), ("b", changes))]
    table = configuration.table(groups)
    assert [table.rows[index] for index in table.marked] == [["augmentation_levels.full.wide_ranges", "0.0", "1.0"]]


def test_the_optimiser_s_switches_are_told(tmp_path):
    sam = {"optimizer__sam_rho": {"epoch 1": 0.0, "epoch 51": 0.1}, "optimizer__sam_every": 2}
    more = {"optimizer__nesterov": True, "optimizer__decay": "kernels", "optimizer__sam_group": 50}
    a, b, c = (
        sample_runs.recipe(tmp_path, name, [[0.1] * 5], **changes)
        for name, changes in (("a", {}), ("b", sam), ("c", sam | more | {"optimizer__sam_adaptive": True}))
    )
    table = configuration.table([a, b, c])
    for row, *values in (
        ("Nesterov", "no", "no", "yes"),
        ("L2 decays", "all parameters", "all parameters", "kernels only"),
        ("SAM groups", "-", "the whole batch", "50 images"),
        ("SAM adaptive", "-", "no", "yes"),
        ("SAM every", "-", "2 updates", "2 updates"),
    ):
        assert list(cells(table, row).values()) == [row, *values]
    labels = [label for label, *_ in configuration.table([c]).rows]
    assert {"Nesterov", "L2 decays", "gradient clipping (global norm)", "SAM groups", "SAM adaptive", "SAM every"} <= {*labels}
    assert not any(label.startswith("SAM") for label, *_ in configuration.table([a]).rows)
    assert not any(label.startswith("optimizer.") for label, *_ in table.rows)


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
