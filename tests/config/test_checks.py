"""What the doctor finds in recipes: the five that are here, published ones, and each finding on both sides of its threshold."""

import dataclasses

import jax
import numpy as np
import pytest

from wrn_jax.config import (
    Config,
    Cosine,
    Data,
    Linear,
    Optimizer,
    Recipe,
    Strengths,
    WarmRestarts,
    at,
    checks,
    epoch,
    epochs,
    last,
    load_file,
    step,
    steps,
)
from wrn_jax.config.timeline import Timeline

SOUND = {epoch(1): Linear(0.01, 0.1, epochs(2)), epoch(3): Cosine(0.1, 0.0, epochs(18))}


def examine(rate=SOUND, steps_per_epoch=10, decay=5e-4, held_out=5000, patience=None, levels=None, optimizer=None, **recipe):
    """Findings in a sound recipe of 20 epochs with some of it changed."""
    config = Config(
        data=Data(validation_size=held_out),
        recipe=Recipe(**{"epochs": 20, "learning_rate": rate} | recipe),
        optimizer=Optimizer(**{"weight_decay": decay} | (optimizer or {})),
        early_stopping_patience=patience,
        augmentation_levels=levels or Config().augmentation_levels,
    )
    with jax.disable_jit():  # compiling each of these small recipes would take most of the time
        return checks.examine(config, Timeline(config, steps_per_epoch))


def names(found):
    return {finding.name for finding in found}


AS_EXECUTED = {
    "peak-not-reached",
    "restarts-within-epoch",
    "uneven-evaluation",
    "ends-high",
    "rate-jump",
    "rate-too-low",
    "decay-times-rate",
    "best-on-test",
}


@pytest.mark.parametrize(
    ("name", "expected", "objections"),
    [
        ("session02", {"best-on-test", "mixing-at-end"}, 0),
        ("session04", {"best-on-test"}, 0),
        *((name, set(), 0) for name in ("quickstart", "base", "trivial", "trivial_late_sam", "sam", "small30", "small100")),
        *((name, {"mixing-at-end"}, 0) for name in ("flat", "rising", "falling")),
        ("session02_as_executed", AS_EXECUTED | {"mixing-at-end"}, 7),
        ("session04_as_executed", AS_EXECUTED, 7),
    ],
)
def test_finds_what_went_wrong_and_nothing_else(name, expected, objections):
    config = load_file(f"configs/{name}.py")
    found = checks.examine(config, Timeline.of(config), config)
    assert names(found) == expected
    assert len(found) == len(expected)
    assert len(checks.loud(found, config.silence)) == objections


def test_gives_epoch_and_figures():
    config = load_file("configs/session02_as_executed.py")
    found = {finding.name: finding for finding in checks.examine(config, Timeline.of(config))}
    assert found["peak-not-reached"].epoch == 6
    assert "rises to 0.0999, and afterwards the rate never exceeds 0.01 (10 % of it)" in found["peak-not-reached"].text
    assert "744 times" in found["restarts-within-epoch"].text
    assert "after 25 steps, where an epoch has 196" in found["restarts-within-epoch"].text
    assert found["restarts-within-epoch"].epoch == pytest.approx(1 + (980 + 25) / 196)
    # Step 196 e - 1 stands (196 e - 1 - 980) % 25 steps into a cycle: 24 of them after epoch 30, 0 after epoch 11.
    assert "epoch 30 at a rate of 0.000139, epoch 11 at 0.01;" in found["uneven-evaluation"].text
    last = 1e-4 + 0.0099 * (1 + np.cos(np.pi * ((19599 - 980) % 25) / 25)) / 2
    assert f"the last rate is {last:.3g}, {last / 0.01:.0%} of".replace("%", " %") in found["ends-high"].text
    assert found["rate-jump"].epoch == pytest.approx(1 + 981 / 196)
    assert "falls from 0.0999 to 0.00996, by a factor of 10" in found["rate-jump"].text
    assert "0.001 x peak rate 0.01 = 1e-05" in found["decay-times-rate"].text


def test_counts_the_restarts_of_a_wave():
    """Session 04 restarts 539 times up to epoch 61, then its wave of 80 steps has a bottom 40 steps after each top."""
    config = load_file("configs/session04_as_executed.py")
    timeline = Timeline.of(config)
    text = next(f.text for f in checks.examine(config, timeline) if f.name == "restarts-within-epoch")
    bottoms = len(range(60 * 196 + 40, 19599, 80))
    assert f"restarts {539 + bottoms} times" in text
    assert "after 20 to 80 steps" in text


TRIANGLES = {epoch(1 + 2 * n): Linear(*ends, epochs(2)) for n, ends in enumerate([(0, 0.1), (0.1, 0)] * 4)}


@pytest.mark.parametrize(
    ("rate", "length"),
    [
        ({epoch(1): 0.1, epoch(7): 0.02, epoch(13): 0.004, epoch(17): 0.0008}, 20),  # the WideResNet paper
        ({epoch(1): 0.01, epoch(2): 0.1, epoch(10): 0.01, epoch(15): 0.001}, 20),  # He et al., 2016, with its short warm-up
        (Cosine(0.1, 0.0, epochs(20)), 20),
        (WarmRestarts(0.1, 0.0, epochs(1), multiplier=2), 15),  # SGDR
        ({epoch(1): Linear(0.0, 0.1, epochs(4)), epoch(5): Linear(0.1, 0.0, epochs(16))}, 20),
        (TRIANGLES, 16),  # Smith, 2017
        ({epoch(1): Linear(0.01, 0.1, epochs(2)), epoch(3): Cosine(0.1, 0.0, epochs(20), since=epoch(1))}, 20),
        ({epoch(1): Cosine(0.1, 1e-3, epochs(10)), epoch(11): Cosine(0.05, 0, epochs(10))}, 20),
    ],
    ids=["steps", "constants", "cosine", "restarts", "triangle", "triangles", "warm-up over a cosine", "falling tops"],
)
def test_usual_schedules_are_sound(rate, length):
    assert examine(rate, epochs=length, steps_per_epoch=50) == []


LAST = Cosine(0.02, 0, epochs(5))
LATE = {epoch(1): 0.3, epoch(21): 0.1}
MINE = Strengths(flip_probability=0.5, affine_probability=0.5, rotate=5.0)
BOTH_SIDES = {
    "peak-not-reached": [
        ({"rate": {epoch(1): Linear(0.01, 0.1, epochs(2)), epoch(3): 0.077}}, {}),
        ({}, {"rate": {epoch(1): Linear(0.01, 0.1, epochs(2)), epoch(3): 0.07}}),
    ],
    "restarts-within-epoch": [
        ({"rate": WarmRestarts(0.1, 0, steps(10))}, {"rate": WarmRestarts(0.1, 0, steps(9))}),
        ({"rate": WarmRestarts(0.1, 0, epochs(20))}, {"rate": Cosine(0.1, 0, steps(4), beyond="continue")}),
    ],
    "uneven-evaluation": [
        ({"rate": WarmRestarts(0.1, 0.03, epochs(2.5))}, {"rate": WarmRestarts(0.1, 0, epochs(2.5))}),
        ({"rate": WarmRestarts(0.1, 0, epochs(3))}, {"rate": WarmRestarts(0.1, 0, epochs(1.5))}),
        ({"rate": WarmRestarts(0.1, 0, steps(5))}, {"rate": WarmRestarts(0.1, 0, steps(6))}),
        ({"rate": WarmRestarts(0.1, 0, epochs(13))}, {"rate": WarmRestarts(0.1, 0, steps(7))}),
    ],
    "ends-high": [
        ({"rate": {epoch(1): 0.1, epoch(11): 0.0049}}, {"rate": {epoch(1): 0.1, epoch(11): 0.0051}}),
        # The top of the last cycle counts, not that of the run.
        (
            {"rate": {epoch(1): 0.1, epoch(5): 1e-4, epoch(9): 0.01, epoch(15): 0.0004}},
            {"rate": {epoch(1): 0.1, epoch(5): 1e-4, epoch(9): 0.01, epoch(15): 0.0006}},
        ),
    ],
    "rate-jump": [
        (
            {"rate": {epoch(1): Linear(0.1, 0.06, epochs(10)), epoch(11): 0.031}},
            {"rate": {epoch(1): Linear(0.1, 0.06, epochs(10)), epoch(11): 0.029}},
        ),
        # Up from the bottom of a cycle is a restart, from the middle it is not.
        (
            {"rate": {epoch(1): Cosine(0.1, 0, epochs(10)), epoch(9.5): Cosine(0.1, 0, epochs(11.5))}},
            {"rate": {epoch(1): Cosine(0.1, 0, epochs(10)), epoch(7): Cosine(0.1, 0, epochs(14))}},
        ),
        ({"rate": {epoch(1): 0.1, epoch(11): 0.01}}, {"rate": {epoch(1): 0.1, epoch(11): Linear(0.01, 0, epochs(10))}}),
        # The bottom is that of the last cycle, whose top may be lower than that of the run.
        (
            {"rate": {epoch(1): Cosine(0.1, 0, epochs(10)), epoch(11): Cosine(0.02, 0.001, epochs(5)), epoch(16): LAST}},
            {"rate": {epoch(1): Cosine(0.1, 0, epochs(10)), epoch(11): Cosine(0.02, 0.008, epochs(5)), epoch(16): LAST}},
        ),
        # A line that goes on, however steep, has no jump.
        (
            {"rate": {epoch(1): Linear(0.1, 0.05, steps(5)), step(5): Linear(0.05, 0, steps(2)), step(7): 0.0}},
            {"rate": {epoch(1): Linear(0.1, 0.05, steps(5)), step(5): Linear(0.02, 0, steps(4)), step(9): 0.0}},
        ),
        # Small against the top of the run.
        (
            {"rate": {epoch(1): Linear(0.1, 9e-4, epochs(9)), epoch(11): 1e-4}},
            {"rate": {epoch(1): Linear(0.1, 5e-3, epochs(9)), epoch(11): 1e-4}},
        ),
        ({}, {"rate": {epoch(1): Linear(0.1, 0.09, epochs(10)), epoch(11): 0.0}}),
    ],
    "rate-near-zero": [
        ({"rate": Cosine(0.1, 0, epochs(18.5))}, {"rate": Cosine(0.1, 0, epochs(18))}),
        ({"rate": Cosine(0.1, 1.1e-4, epochs(10))}, {"rate": Cosine(0.1, 0.9e-4, epochs(10))}),
    ],
    "long-warm-up": [
        (
            {"rate": {epoch(1): Linear(0.01, 0.1, epochs(4)), epoch(5): Cosine(0.1, 0, epochs(16))}},
            {"rate": {epoch(1): Linear(0.01, 0.1, epochs(5)), epoch(6): Cosine(0.1, 0, epochs(15))}},
        ),
        ({"rate": 0.1}, {"rate": Linear(0.01, 0.1, epochs(20))}),
    ],
    "rate-too-high": [
        ({"rate": 0.8}, {"rate": 0.81}),  # the default batch has 256 images
        ({"rate": 0.05, "batch_size": 16}, {"rate": 0.06, "batch_size": 16}),
        ({}, {"rate": {epoch(1): Linear(0.1, 0.9, epochs(2)), epoch(3): Cosine(0.9, 0, epochs(18))}}),
    ],
    "rate-too-low": [
        ({"rate": 0.051}, {"rate": 0.05}),  # the default batch has 256 images
        ({"rate": 0.11, "batch_size": 512}, {"rate": 0.1, "batch_size": 512}),
        ({}, {"rate": {epoch(1): Linear(0.01, 0.04, epochs(2)), epoch(3): Cosine(0.04, 0, epochs(18))}}),
    ],
    "decay-times-rate": [
        ({"decay": 1.3e-4}, {"decay": 1.2e-4}),
        ({"decay": 1.9e-3}, {"decay": 2.1e-3}),
        ({}, {"decay": 0.0}),
        # What counts is the rate after the warm-up.
        ({}, {"rate": {epoch(1): Linear(0.01, 0.1, epochs(2)), epoch(3): Cosine(0.01, 0, epochs(18))}}),
    ],
    "sam-rho": [
        ({"optimizer": {"sam_rho": 0.4}}, {"optimizer": {"sam_rho": 0.41}}),
        ({"optimizer": {"sam_rho": 0.0}}, {"optimizer": {"sam_rho": {epoch(1): 0.0, last(2): 0.02}}}),
        ({"optimizer": {"sam_rho": 1.0, "sam_adaptive": True}}, {"optimizer": {"sam_rho": 0.2, "sam_adaptive": True}}),
        (
            {"optimizer": {"sam_rho": {epoch(1): 0.0, last(2): 0.1}, "sam_every": 190}},
            {"optimizer": {"sam_rho": {epoch(1): 0.0, last(2): 0.1}, "sam_every": 200}},
        ),
    ],
    "average-after-end": [
        (
            {"optimizer": {"average_decay": {epoch(1): 0.0, epoch(20): 0.999}}},
            {"optimizer": {"average_decay": {epoch(1): 0.0, epoch(21): 0.999}}},
        ),
    ],
    "average-short": [
        (
            {"optimizer": {"average_decay": {epoch(1): 0.0, last(2): 0.9}}},
            {"optimizer": {"average_decay": {epoch(1): 0.0, last(2): 0.89}}},
        ),
    ],
    "mixing-at-end": [
        ({"mixup_alpha": {epoch(1): 0.2, epoch(20): 0.0}}, {"mixup_alpha": {epoch(1): 0.2, epoch(20, plus=10): 0.0}}),
        ({"cutmix_probability": {epoch(1): 0.5, last(5): 0.0}}, {"cutmix_probability": 0.5}),
        ({"mixup_alpha": Linear(0.2, 0.0, epochs(20))}, {"mixup_alpha": Linear(0.2, 0.02, epochs(20))}),
        ({"mixup_alpha": {epoch(1): 0.2, epoch(20): 0.0}}, {"mixup_alpha": {epoch(1): 0.2, epoch(20, plus=9): 0.0}}),
    ],
    "phase-after-end": [
        ({"dropout": {epoch(1): 0.3, epoch(20): 0.1}}, {"dropout": LATE}),
        ({"dropout": {epoch(1): 0.3, last(19): 0.1}}, {"dropout": {epoch(1): 0.3, last(20): 0.1}}),
        ({"dropout": {epoch(1): 0.3, last(19): 0.1}}, {"dropout": {epoch(1): 0.3, last(20.5): 0.1, last(3): 0.0}}),
        (
            {"dropout": {epoch(1): 0.3, at("50 %"): 0.2, last(9): 0.1}},
            {"dropout": {epoch(1): 0.3, at("50 %"): 0.2, last(10): 0.1}},
        ),
    ],
    "checkpoint-after-end": [({"checkpoint_epochs": (5, 20)}, {"checkpoint_epochs": (5, 21)})],
    "early-stopping-idle": [({"patience": 18}, {"patience": 19})],
    "patience-below-cycle": [
        ({"rate": WarmRestarts(0.1, 0, epochs(10)), "patience": 10}, {"rate": WarmRestarts(0.1, 0, epochs(10)), "patience": 9}),
        ({"patience": 5}, {"rate": WarmRestarts(0.1, 0, epochs(2), multiplier=3), "patience": 5}),
    ],
    "best-on-test": [({"held_out": 10000}, {"held_out": 0})],
    "small-hold-out": [({"held_out": 625}, {"held_out": 624}), ({"held_out": 0}, {"held_out": 1})],
    "idle-augmentation": [
        (
            {"augmentation": "mine", "levels": {"mine": MINE}},
            {"augmentation": "mine", "levels": {"mine": dataclasses.replace(MINE, rotate=0.0)}},
        ),
        (
            {"augmentation": "mine", "levels": {"mine": Strengths()}},
            {"augmentation": "mine", "levels": {"mine": Strengths(rotate=5.0)}},
        ),
        (
            {"augmentation": "mine", "levels": {"mine": Strengths(trivial_probability=1.0)}},
            {"augmentation": "mine", "levels": {"mine": Strengths(crop_probability=1.0, crop_reflection=1.0)}},
        ),
        (
            {"augmentation": "mine", "levels": {"mine": Strengths(holes_probability=1.0, holes_smallest=0.3)}},
            {"augmentation": "mine", "levels": {"mine": Strengths(holes_probability=1.0)}},
        ),
        # A level that the recipe does not use, or not in time, does nothing wrong.
        (
            {"augmentation": {epoch(1): "on", epoch(21): "mine"}, "levels": {"on": MINE, "mine": Strengths(rotate=5.0)}},
            {"augmentation": {epoch(1): "on", epoch(20): "mine"}, "levels": {"on": MINE, "mine": Strengths(rotate=5.0)}},
        ),
    ],
}
CASES = [(name, *pair) for name, pairs in BOTH_SIDES.items() for pair in pairs]


@pytest.mark.parametrize(("name", "without", "with_it"), CASES, ids=[case[0] for case in CASES])
def test_each_finding_on_both_sides_of_its_threshold(name, without, with_it):
    assert name not in names(examine(**without))
    found = [finding for finding in examine(**with_it) if finding.name == name]
    assert len(found) == (1 if with_it else 0)


def test_a_sound_recipe_has_no_findings():
    assert examine() == []


class TestBatchSize:
    @pytest.mark.parametrize(("batch_size", "expected"), [(384, True), (383, False), (256, False), (171, False), (170, True)])
    def test_is_compared_with_what_was_written(self, batch_size, expected):
        written = Config()
        config = written.override({"recipe.batch_size": batch_size})
        assert ("batch-without-rate" in names(checks.examine(config, Timeline.of(config), written))) == expected
        assert "batch-without-rate" not in names(checks.examine(config, Timeline.of(config)))

    def test_may_change_with_the_rate(self):
        changed = Config().override({"recipe.batch_size": 64, "recipe.learning_rate": 0.025})
        assert checks.batch_without_rate(changed, Config(), "as written") == []

    def test_the_usual_rule_is_given(self):
        (finding,) = checks.batch_without_rate(Config().override({"recipe.batch_size": 64}), Config(), "B has")
        assert finding.text == "batch 64, B has 256, and the same rate; by the usual rule the rate would be 0.25 times that"


def test_every_finding_has_a_meaning_a_known_name_and_a_test():
    assert set(BOTH_SIDES) | {"batch-without-rate"} == set(checks.FINDINGS)
    explained = checks.explain()
    for name in checks.FINDINGS:
        assert f"  {name}  " in explained


def test_findings_stand_in_one_order_whatever_finds_them():
    written = load_file("configs/session04_as_executed.py")
    config = written.override({"recipe.batch_size": 64})
    found = [finding.name for finding in checks.examine(config, Timeline.of(config), written)]
    assert "batch-without-rate" in found
    assert found == sorted(found, key=list(checks.FINDINGS).index)


class TestReport:
    FOUND = (
        checks.Finding("ends-high", 100, "too high " * 30),
        checks.Finding("rate-jump", 6.005102, "up"),
        checks.Finding("rate-jump", 61, "down"),
        checks.Finding("best-on-test", None, "as it says"),
    )

    def test_silenced_findings_are_told_in_brief_with_their_reason(self):
        lines = checks.report(self.FOUND, {"rate-jump": "it is meant", "long-warm-up": "it is short"})
        assert lines[0] == "findings: 2"
        assert lines[-1] == "  silenced: rate-jump (it is meant)"
        assert not any("up" in line.split() or "long-warm-up" in line for line in lines)

    def test_lines_are_short_and_name_the_epoch(self):
        lines = checks.report(self.FOUND, {})
        assert max(map(len, lines)) <= 128
        assert "  rate-jump              epoch 6.005  up" in lines
        assert "  best-on-test                        as it says" in lines
        assert lines[2].startswith(" " * 38 + "too high")

    def test_an_update_of_the_last_epoch_is_in_that_epoch(self):
        assert checks.report([checks.Finding("rate-jump", 30.9972, "up")], {})[1:] == [
            "  rate-jump              epoch 30.99  up"
        ]

    def test_nothing_to_object_to(self):
        assert checks.report([], {}) == ["findings: nothing to object to"]
        assert checks.report(self.FOUND[3:], {"best-on-test": "so be it"}) == [
            "findings: nothing to object to",
            "  silenced: best-on-test (so be it)",
        ]


@pytest.mark.parametrize(
    "changes", [{"rate": 0.0}, {"rate": WarmRestarts(0.0, 0.0, steps(1))}, {"epochs": 1, "steps_per_epoch": 1}]
)
def test_odd_recipes_are_examined_too(changes):
    for finding in examine(**changes):
        assert finding.text.isprintable()
        assert "nan" not in finding.text
