"""Up to which update two configurations are one run."""

import pytest

from tests.small import CHANGES
from wrn_jax.config import from_dict, load_file
from wrn_jax.config.agreement import agreed_steps, first_differences
from wrn_jax.config.extension import extended
from wrn_jax.config.timeline import Timeline

BASE = load_file("configs/session04.py").override(CHANGES)  # 5 epochs of 10 updates
FLAT = BASE.override({"recipe.learning_rate": 0.1, "recipe.augmentation": "full", "recipe.scale": 1.0, "recipe.epochs": 5})


@pytest.mark.parametrize(
    ("base", "changes", "expected"),
    [
        (BASE, {}, {}),
        (BASE, {"devices": 2, "silence.ends-high": "so be it", "early_stopping_patience": 3}, {}),
        (BASE, {"recipe.checkpoint_epochs": [7]}, {}),
        (BASE, {"seed": 1, "recipe.dropout": 0.2}, {"seed": 0}),  # what acts later is not looked at
        (BASE, {"model.widen_factor": 2, "recipe.batch_size": 50}, {"model.widen_factor": 0, "recipe.batch_size": 0}),
        (FLAT, {"optimizer.weight_decay": {"epoch 1": 0.001, "epoch 4": 0.0}}, {"optimizer.weight_decay.epoch 4": 30}),
        (FLAT, {"recipe.learning_rate": {"epoch 1": 0.1, "step 12": 0.1, "last 1 epoch": 0.05}},
         {"recipe.learning_rate.last 1 epoch": 40, "recipe.learning_rate.step 12": 40}),
        # Another way to write the same values, and a phase that never begins.
        (FLAT, {"recipe.mixup_alpha": {"epoch 1": 0.0, "epoch 9": 1.0}}, {}),
        (FLAT, {"recipe.epochs": 8}, {"recipe.epochs": 50}),
        (FLAT, {"recipe.augmentation": {"epoch 1": "full", "epoch 5": "off"}}, {"recipe.augmentation.epoch 5": 40}),
        (FLAT, {"augmentation_levels.off.hue": 3.0}, {}),  # of a level that is not used
        (FLAT, {"augmentation_levels.full.hue": 3.0}, {"augmentation_levels.full.hue": 0}),
    ],
)  # fmt: skip
def test_names_the_keys_and_the_update_from_which_they_act(base, changes, expected):
    base = base.override({"recipe.mixup_alpha": 0.0})
    assert first_differences(base, base.override(changes)) == expected


def test_the_updates_in_common_are_those_of_the_shorter_run_or_up_to_the_first_difference():
    longer = FLAT.override({"recipe.epochs": 8, "recipe.dropout": {"epoch 1": 0.3, "epoch 2": 0.2, "epoch 7": 0.1}})
    assert agreed_steps(FLAT, FLAT) == 50
    assert agreed_steps(longer, FLAT.override({"recipe.dropout": {"epoch 1": 0.3, "epoch 2": 0.2}})) == 50
    assert agreed_steps(longer.override({"recipe.dropout": {"epoch 1": 0.3, "epoch 3": 0.2}}), longer) == 10
    assert agreed_steps(FLAT, FLAT.override({"seed": 1})) == 0


def test_ramps_agree_as_far_as_their_ends_and_their_shares_do():
    def ramp(end, length):
        course = {"epoch 2": {"kind": "ramp", "start": "full", "end": end, "over": f"{length} epochs"}, "epoch 4": "off"}
        return FLAT.override({"recipe.augmentation": {"epoch 1": "full"} | course})

    assert agreed_steps(FLAT, ramp("off", 2)) == 11  # the first update of a ramp still has the old strengths
    assert agreed_steps(ramp("off", 2), ramp("off", 3)) == 11
    assert agreed_steps(ramp("off", 2), ramp("minimal", 2)) == 11
    assert agreed_steps(ramp("off", 2), ramp("off", 2)) == 50


def test_positions_that_follow_the_length_differ_with_it():
    """The rates of the first update are the same, 0.01, and no others."""
    assert first_differences(BASE, BASE.override({"recipe.scale": 0.1})) == {"recipe.scale": 1}


RECIPES = ("session04", "session02", "trivial", "small30")


@pytest.mark.parametrize("name", RECIPES)
def test_an_extension_leaves_every_update_as_it_was_and_goes_on_as_the_last_phase_does(name):
    config = load_file(name).override({"data.name": "embedded", "data.validation_size": 0, "recipe.scale": 0.07})
    config = config.override({"recipe.label_smoothing": {"epoch 1": 0.1, "last 1 epoch": 0.05, "90 % + 1 step": 0.0}})
    longer, old = extended(config, 3), Timeline.of(config)
    new = Timeline.of(longer)
    assert new.epochs == old.epochs + 3
    assert new.checkpoint_epochs == old.checkpoint_epochs
    assert first_differences(config, longer) == dict.fromkeys(first_differences(config, longer), old.steps)
    for value in ("dropout", "label_smoothing", "augmentation"):
        assert set(new.values[value][old.steps :]) == {old.values[value][-1]}
    assert from_dict(longer.to_dict(), "itself") == longer
