"""The recipes on the clock: the document's transition table, and scaling."""

import jax
import numpy as np
import pytest

from wrn_jax.config import Config, Ramp, Recipe, Strengths, epoch, epochs, from_dict, last, load_file
from wrn_jax.config.moving import MOVING
from wrn_jax.config.timeline import MOST_SAMPLED, Timeline


def timeline(name, **changes):
    config = load_file(f"configs/{name}.py").override({key.replace("__", "."): value for key, value in changes.items()})
    return Timeline(config, 196)


def described_rate(k, recipe):
    """The rate of the described schedule at step k, in float64, written out from the description."""
    peak, floor, period = {"session02": (0.1, 1e-4, 25), "session04": (0.15, 5e-4, 20)}[recipe]
    if k < 5 * 196:
        return 0.01 + (peak - 0.01) * k / (5 * 196)
    if recipe == "session04" and k >= 60 * 196:
        return 1e-5 + (peak - 1e-5) * (1 + np.cos(np.pi * (k - 60 * 196) / (40 * 196))) / 2
    length = period * 196
    return floor + (peak - floor) * (1 + np.cos(np.pi * (k % length) / length)) / 2


@pytest.mark.parametrize("recipe", ["session02", "session04"])
def test_rates_are_the_described_ones_at_every_step(recipe):
    found = timeline(recipe).values["learning_rate"]
    np.testing.assert_allclose(found, [described_rate(k, recipe) for k in range(19600)], rtol=2e-5)


def test_session04_transitions_are_those_of_the_document():
    found = {(event.epoch, event.name, event.before, event.after) for event in timeline("session04").events()}
    restarts, cosine = "warm restarts 0.15 to 0.0005 every 20 epochs since epoch 1", "cosine 0.15 to 1e-05 over 40 epochs"
    assert found == {
        (6, "learning_rate", "linear 0.01 to 0.15 over 5 epochs", restarts),
        (41, "augmentation", "full", "reduced"),
        (41, "mixup_alpha", "0.2", "0.15"),
        (51, "dropout", "0.3", "0.2"),
        (51, "label_smoothing", "0.1", "0.05"),
        (61, "learning_rate", restarts, cosine),
        (71, "augmentation", "reduced", "minimal"),
        (71, "mixup_alpha", "0.15", "0"),
        (81, "dropout", "0.2", "0.1"),
    }


def test_transitions_act_from_the_first_step_of_their_epoch():
    line = timeline("session04")
    for name, first, before, after in [("dropout", 50 * 196, 0.3, 0.2), ("mixup_alpha", 70 * 196, 0.15, 0.0)]:
        values = line.values[name]
        assert (values[first - 1], values[first]) == (np.float32(before), np.float32(after))
    assert [event.name for event in line.events_at(40 * 196)] == ["mixup_alpha", "augmentation"]
    assert line.events_at(40 * 196 + 1) == []


def test_levels_are_traced_strengths():
    line = timeline("session04")
    at = jax.jit(line.at)
    found = []
    for step in (0, 40 * 196, 70 * 196):
        now = at(np.int32(step))
        found.append(
            (line.level_names[int(now["augmentation"])], float(now.strengths.cutout_size), float(now.strengths.rotate))
        )
    assert found == [("full", 8, 15), ("reduced", 6, 10), ("minimal", 4, 0)]
    assert at._cache_size() == 1


class TestRamp:
    """Ten epochs of ten updates: "a" rises to "c" over five epochs and stays, "b" from epoch 7, back to "a" in the last two."""

    config = Config(
        augmentation_levels={
            "a": Strengths(),
            "b": Strengths(rotate=90.0),
            "c": Strengths(flip_probability=0.1, rotate=30.0),
        },
        recipe=Recipe(
            epochs=10,
            augmentation={epoch(1): Ramp("a", "c", epochs(5)), epoch(7): "b", last(2): Ramp("c", "a", epochs(2))},
        ),
    )
    line = Timeline(config, 10)

    def test_strengths_are_on_the_line_and_its_ends_are_the_levels_to_the_bit(self):
        at = jax.jit(self.line.at)
        steps = (0, 10, 49, 50, 59, 60, 80, 90, 99, 500)
        found = [(float(now.strengths.rotate), float(now.strengths.flip_probability)) for now in map(at, np.int32(steps))]
        ends = {0: (0, 0), 50: (30, np.float32(0.1)), 59: (30, np.float32(0.1)), 60: (90, 0), 80: (30, np.float32(0.1))}
        assert {step: found[steps.index(step)] for step in ends} == ends
        between = [(6, 0.02), (29.4, 0.098), (15, 0.05), (1.5, 0.005), (0, 0)]
        np.testing.assert_allclose([found[steps.index(step)] for step in (10, 49, 90, 99, 500)], between, rtol=1e-5)
        assert at._cache_size() == 1

    def test_it_is_written_with_its_ends_and_the_share_of_the_way(self):
        rows = [row["augmentation"] for row in self.line.table()]
        rise, fall = ([f"{way} ({share} %)" for share in shares]
                      for way, shares in (("a to c", (18, 38, 58, 78, 98)), ("c to a", (45, 95))))  # fmt: skip
        assert rows == [*rise, "c", "b", "b", *fall]
        assert [(event.epoch, str(event)) for event in self.line.events()] == [
            (7, "augmentation: ramp a to c over 5 epochs -> b"),
            (9, "augmentation: b -> ramp c to a over 2 epochs"),
        ]
        assert self.line.levels_at(self.line.values["augmentation"]) == ["a", "c", "b", "c", "a"]
        assert self.line.probabilities == {"flip_probability"}

    def test_it_shortens_with_the_recipe_and_is_read_back(self):
        tenth = Timeline(self.config.override({"recipe.scale": 0.5}), 10)
        np.testing.assert_array_equal(tenth.values["augmentation"][::5], self.line.values["augmentation"][::10])
        assert from_dict(self.config.to_dict(), "itself") == self.config


def test_probabilities_are_those_of_the_levels_that_the_recipe_has():
    """What no level uses is not in the program."""
    assert timeline("session04").probabilities == {
        "flip_probability", "affine_probability", "cutout_probability", "brightness_contrast_probability", "color_probability",
    }  # fmt: skip
    levels = {"a": Strengths(crop_padding=4.0), "b": Strengths(crop_probability=1.0), "c": Strengths(flip_probability=1.0)}
    config = Config(recipe=Recipe(augmentation={epoch(1): "a", epoch(21): "b"}), augmentation_levels=levels)
    assert Timeline(config, 5).probabilities == {"crop_probability"}


def test_session02_never_changes_but_the_rate():
    values = timeline("session02").values
    assert {name: len(np.unique(values[name])) for name in ("dropout", "mixup_alpha", "label_smoothing", "augmentation")} == {
        "dropout": 1, "mixup_alpha": 1, "label_smoothing": 1, "augmentation": 1,
    }  # fmt: skip


class TestScale:
    def test_hundred_epochs_in_ten(self):
        line = timeline("session04", recipe__scale=0.1)
        assert (line.epochs, line.steps) == (10, 1960)
        assert [(event.step, event.name) for event in line.events()] == [
            (98, "learning_rate"), (784, "mixup_alpha"), (784, "augmentation"), (980, "dropout"), (980, "label_smoothing"),
            (1176, "learning_rate"), (1372, "mixup_alpha"), (1372, "augmentation"), (1568, "dropout"),
        ]  # fmt: skip
        assert line.checkpoint_epochs == tuple(range(1, 11))

    def test_the_whole_curve_shrinks(self):
        whole, tenth = (timeline("session04", recipe__scale=scale).values["learning_rate"] for scale in (1.0, 0.1))
        np.testing.assert_allclose(tenth, whole[::10], rtol=1e-4, atol=1e-7)

    def test_stretches_too(self):
        line = timeline("session02", recipe__scale=2.0)
        assert line.epochs == 200
        assert line.checkpoint_epochs[:3] == (20, 40, 50)

    def test_checkpoints_fall_on_the_epoch_that_reaches_them(self):
        assert timeline("session02", recipe__scale=0.1).checkpoint_epochs == (1, 2, 3, 4, 5, 6, 8, 9, 10)
        assert timeline("session02", recipe__scale=0.1, recipe__checkpoint_epochs=[1, 21, 50]).checkpoint_epochs == (1, 3, 5)

    def test_an_odd_scale_is_rounded_to_whole_epochs_and_phases_follow(self):
        line = timeline("session04", recipe__scale=0.034)
        assert line.epochs == 3
        assert line.events_at(round(0.4 * 3 * 196))[0].name == "mixup_alpha"

    def test_never_less_than_an_epoch(self):
        assert timeline("session04", recipe__scale=1e-6).epochs == 1


def test_table_has_first_and_last_rate_of_each_epoch():
    rows = timeline("session04").table()
    assert len(rows) == 100
    assert rows[0]["learning_rate_first"] == 0.01
    assert rows[-1]["learning_rate_last"] == pytest.approx(described_rate(19599, "session04"), rel=1e-5)
    assert [rows[e - 1]["augmentation"] for e in (40, 41, 70, 71)] == ["full", "reduced", "reduced", "minimal"]
    assert (rows[49]["dropout"], rows[50]["dropout"]) == (0.3, 0.2)


def test_a_very_long_run_is_looked_at_in_some_of_its_steps():
    short = timeline("session04")
    long = Timeline(load_file("session04").override({"recipe.scale": 200.0}), 50_000)
    assert (long.steps, len(long.edges)) == (1_000_000_000, len(long.sampled) + 1)
    assert len(long.sampled) < 1.1 * MOST_SAMPLED
    assert (long.sampled[0], long.sampled[-1]) == (0, long.steps - 1)
    for name in MOVING:
        for step, _ in long.beginnings(name):
            if 0 < step < long.steps:
                place = long.index(step)
                np.testing.assert_array_equal(long.sampled[place - 1 : place + 1], [step - 1, step])
    # Scaled alike, both have the same values at the ends of the short one's epochs.
    for name in MOVING:
        ends = np.arange(1, 101)
        found = long.values[name][long.index(ends * (long.steps // 100) - 1)]
        np.testing.assert_allclose(found, short.values[name][ends * short.steps_per_epoch - 1], rtol=0.05, atol=2e-3)
    rows = long.table()
    assert [row["epoch"] for row in (rows[0], rows[-1])] == [1, 20_000]
    assert rows[-1]["learning_rate_last"] == pytest.approx(1e-5, rel=0.01)


def test_sharpness_aware_steps_are_counted_the_same_in_short_and_long_runs():
    config = load_file("session04").override({"optimizer.sam_rho": {"epoch 1": 0.0, "epoch 51": 0.1}, "optimizer.sam_every": 3})
    short, long = Timeline(config, 196), Timeline(config, 196 * 100)
    assert long.steps > MOST_SAMPLED
    every = short.sharpness_aware(range(short.steps))
    assert every.sum() == short.sharpness_aware_steps == len(range(9801, 19600, 3))
    assert long.sharpness_aware_steps == len(range(980_001, 1_960_000, 3))
    begin = 50 * 19600
    np.testing.assert_array_equal(long.sharpness_aware(range(begin - 1, begin + 5)), [0, 0, 1, 0, 0, 1])
