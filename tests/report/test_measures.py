"""The figures, against small groups of which they can be told by hand."""

import math

import numpy as np
import pytest

from tests.sample_runs import NUM_TEST, load, recipe, right, row, write
from wrn_jax.config import Config
from wrn_jax.config.timeline import Timeline
from wrn_jax.report import measures
from wrn_jax.report.measures import Selection
from wrn_jax.report.runs import Evaluation, Group, Run


def made(name, *curves, valid=None, evaluations=((),) * 9, config=None, plan=None):
    """A finished group, one run for each curve, with its evaluations; without a configuration where none is given."""
    rows = [
        tuple(row(epoch, accuracy, valid and valid[epoch - 1]) for epoch, accuracy in enumerate(curve, 1)) for curve in curves
    ]
    runs = [
        Run(f"{name}{number}", f"{name}{number}", rows, config, plan, evaluations=tuple(of_run))
        for number, (rows, of_run) in enumerate(zip(rows, evaluations, strict=False))
    ]
    return Group(name, tuple(runs))


def timeline(learning_rate, epochs=10, **recipe):
    config = Config().override({"recipe.learning_rate": learning_rate, "recipe.epochs": epochs, **recipe})
    return Timeline(config, steps_per_epoch=10)


RESTARTS = {"kind": "warm_restarts", "peak": 0.1, "floor": 0.001, "period": "4 steps"}


def test_values_are_those_of_the_last_or_best_epoch():
    group = made("a", [0.1, 0.3, 0.2], [0.2, 0.4, 0.5])
    assert measures.values(group, "last") == [0.2, 0.5]
    assert measures.values(group, "best") == [0.3, 0.5]
    assert measures.values(group, "last", "train_accuracy") == [run.last.train_accuracy for run in group.counted]
    assert measures.mean(group, "best") == pytest.approx(0.4)
    assert measures.augmented_gaps(group, "best") == pytest.approx([-0.01, -0.01])
    assert measures.values(made("a", [0.1, 0.3, 0.2], valid=[0.5, 0.1, 0.2]), "best") == [0.1]  # the judge's


def test_pairs_are_first_minus_second_and_adjusted_together():
    a, b, c = made("a", [0.50], [0.52]), made("b", [0.40], [0.41]), made("c", [0.405], [0.42])
    pairs = measures.compare([a, b, c], "last")
    assert [(pair.first, pair.second) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert pairs[0].difference == pytest.approx(0.105)
    smallest = min(pair.welch.p for pair in pairs)
    assert min(pair.adjusted for pair in pairs) == pytest.approx(3 * smallest)
    (pair,) = measures.compare([made("a", [0.5]), made("b", [0.4], [0.41])], "last")
    assert (pair.welch, pair.adjusted, pair.counts) == (None, None, (1, 2))


def test_runs_are_paired_by_their_seeds(tmp_path):
    groups = []
    for name, dropout, accuracies in (("a", 0.1, {0: 0.5, 1: 0.6, 2: 0.7}), ("b", 0.2, {2: 0.6, 3: 0.1, 0: 0.45})):
        groups += load(
            *(write(tmp_path / f"{name}-seed{seed}", [accuracy] * 5, seed, recipe__dropout=dropout)
              for seed, accuracy in accuracies.items())
        )  # fmt: skip
    (pair,) = measures.compare(groups, "last")
    assert pair.seeds == (0, 2)
    assert pair.paired.difference == pytest.approx(((0.5 - 0.45) + (0.7 - 0.6)) / 2)


def test_unfinished_recipes_are_not_judged(tmp_path):
    groups = [
        recipe(tmp_path, str(dropout), [[dropout / 10 + seed / 100] * length for seed in range(2)], recipe__dropout=dropout)
        for dropout, length in ((0.1, 5), (0.2, 3))
    ]
    (pair,) = measures.compare(groups, "last")
    assert pair.welch is not None
    assert pair.adjusted is None


def predictions(epoch, *correct, digest="same"):
    """For each run an evaluation after `epoch` with these predictions."""
    return [[Evaluation(epoch, {"splits": {"test": {"accuracy": 0.5}}}, images, digest)] for images in correct]


def test_images_are_compared_pair_by_pair_and_together():
    a = made("a", [0.5], [0.5], evaluations=predictions(1, right(200), right(220)))
    b = made("b", [0.5], evaluations=predictions(1, ~right(210)))
    images = measures.compare_images(a, b, "last")
    assert (images.reason, images.networks, images.count, images.by_seed) == ("", (2, 1), NUM_TEST, False)
    (pair,) = images.pairs  # in the order given, as far as both go
    assert (pair.discordance.only_first, pair.discordance.only_second) == (200, 190)
    assert pair.found.difference == pytest.approx(10 / 400)
    assert images.together.difference == pytest.approx((210 - 190) / 400)


@pytest.mark.parametrize(
    ("which", "digest", "reason"), [("last", "other", "different images"), ("best", "same", "no predictions")]
)
def test_what_cannot_be_paired_says_why(which, digest, reason):
    a = made("a", [0.5, 0.4], evaluations=predictions(2, right(200)))
    b = made("b", [0.5, 0.4], evaluations=predictions(2, right(200), digest=digest))
    images = measures.compare_images(a, b, which)
    assert reason in images.reason
    assert images.pairs == ()


def test_selection_tells_best_highest_and_last():
    group = made("a", [0.1, 0.5, 0.3, 0.4, 0.2, 0.3], valid=[0.1, 0.2, 0.3, 0.9, 0.1, 0.1])
    assert measures.selection(group.runs[0]) == Selection(
        run="a0", judge="valid", last=0.3, last_epoch=6, best=0.4, best_epoch=4, top=0.5, top_epoch=2,
        tail_epochs=3, tail_mean=pytest.approx(0.3), tail_sd=pytest.approx(0.1),
    )  # fmt: skip


def test_curves_are_means_over_the_runs_that_have_the_epoch():
    group = made("a", [0.1, 0.2], [0.3, 0.4, 0.5])
    mean, low, high = measures.mean_curve(group, lambda row: row.test_accuracy)
    np.testing.assert_allclose(mean, [0.2, 0.3, 0.5])
    np.testing.assert_allclose(low, [0.1, 0.2, 0.5])
    np.testing.assert_allclose(high, [0.3, 0.4, 0.5])
    assert np.isnan(measures.mean_curve(group, lambda row: row.valid_loss)[0]).all()
    assert measures.accuracy_at(group, 3) == 0.5
    assert measures.accuracy_at(group, 4) is None


def test_falls_and_first_epochs():
    run = made("a", [0.1, 0.4, 0.35, 0.5, 0.3]).runs[0]
    assert measures.falls(run) == (2, pytest.approx(0.2), 5)
    assert measures.falls(made("a", [0.1, 0.2]).runs[0]) == (0, 0.0, 0)
    assert measures.first_epoch_at(run, 0.35) == 2
    assert measures.first_epoch_at(run, 0.6) is None


def test_the_warm_up_is_the_rising_line_at_the_beginning():
    line = {"kind": "linear", "start": 0.01, "end": 0.1, "over": "2 epochs"}
    assert measures.warm_up(timeline({"epoch 1": line, "epoch 3": 0.1}))[1] == 20
    assert measures.warm_up(timeline({"epoch 1": 0.01, "epoch 1 + 1 step": line, "epoch 3 + 1 step": 0.1}))[1] == 21
    assert measures.warm_up(timeline({"epoch 1": line, "epoch 2": 0.1}))[1] == 10
    assert measures.warm_up(timeline({"epoch 1": line | {"start": 0.2}})) is None
    assert measures.warm_up(timeline(0.1)) is None


def test_a_first_phase_of_one_update_is_no_transition():
    events = measures.transitions(timeline({"epoch 1": 0.01, "epoch 1 + 1 step": 0.02, "epoch 3": 0.03}))
    assert [(event.step, event.before, event.after) for event in events] == [(20, "0.02", "0.03")]


def cycle_of(learning_rate, accuracies):
    """The cycle of a run with this rate and these accuracies, one an epoch."""
    plan = timeline(learning_rate, epochs=len(accuracies))
    return measures.rate_cycle(made("a", accuracies, config=Config(), plan=plan))


def test_a_saw_tooth_within_the_epochs_is_seen():
    """The rate has a period of 4 updates and epochs have 10: every second evaluation falls at the top of it."""
    cycle = cycle_of({"epoch 1": RESTARTS}, [0.3 if epoch % 2 else 0.5 for epoch in range(1, 51)])
    assert (cycle.saw_tooth, cycle.tail, cycle.restarts) == (True, 10, 124)
    # Epoch 1 ends after update 9, the second of its cycle; epoch 2 after update 19, the last of its cycle.
    rate = [0.001 + 0.099 * math.cos(math.pi * step / 8) ** 2 for step in range(4)]
    first, second = cycle.evaluations[:2]
    assert (first.before, first.after) == (pytest.approx(rate[1]), pytest.approx(rate[2]))
    assert (second.before, second.after) == (pytest.approx(rate[3]), pytest.approx(rate[0]))
    assert (second.low, second.high) == (pytest.approx(rate[3]), pytest.approx(rate[0]))
    assert (first.position, second.position) == (pytest.approx((rate[1] - rate[3]) / (rate[0] - rate[3])), 0)
    assert cycle.low_third == (5, pytest.approx(0.5))
    assert cycle.high_third == (5, pytest.approx(0.3))
    assert cycle.correlation == pytest.approx(-1)
    cycle = cycle_of({"epoch 1": RESTARTS}, [0.1] * 10)  # too short to be judged
    assert (cycle.saw_tooth, cycle.tail, cycle.correlation) == (True, 0, None)


@pytest.mark.parametrize("phases", [
    0.1,
    {"epoch 1": RESTARTS | {"period": "5 epochs"}},
    {"epoch 1": RESTARTS | {"floor": 0.05}},  # fast, but not by much
    {"epoch 1": {"kind": "cosine", "start": 0.1, "end": 0.0, "over": "10 epochs"}},
])  # fmt: skip
def test_slow_rates_are_no_saw_tooth(phases):
    assert not cycle_of(phases, [0.1] * 10).saw_tooth


def test_the_peak_after_the_warm_up_leaves_it_out():
    line = {"kind": "linear", "start": 0.01, "end": 0.2, "over": "2 epochs"}
    cycle = cycle_of({"epoch 1": line, "epoch 3": 0.05}, [0.1] * 10)
    assert cycle.peak == pytest.approx(0.01 + 0.19 * 19 / 20)
    assert cycle.peak_after == pytest.approx(0.05)
    assert measures.rate_cycle(made("a", [0.1])) is None  # of a recipe that is not known


def evaluated(name, *figures):
    return made(name, *[[0.5]] * len(figures), evaluations=[[Evaluation(1, of_run, None, None)] for of_run in figures])


def test_measures_need_every_run():
    path = ("splits", "test", "top5")
    first = {"splits": {"test": {"top5": 0.7}}, "temperature": None}
    assert measures.measured(evaluated("a", first, first), "last", path) == [0.7, 0.7]
    assert measures.measured(evaluated("a", first, {"splits": {"test": {}}}), "last", path) is None
    assert measures.measured(evaluated("a", first), "last", ("temperature", "value")) is None
    assert measures.measured(made("a", [0.5]), "last", path) is None


def test_corruptions_are_means_over_severities():
    first = {"corruptions": {"noise": [0.1, 0.3], "blur": [0.2, 0.2]}, "corruptions_from": "drawn", "corruption_images": 100}
    other = {"corruptions": {"noise": [0.5, 0.5]}, "corruptions_from": "drawn", "corruption_images": 100}
    group = evaluated("a", first, other)
    assert measures.corruptions(group, "last") == {"noise": [pytest.approx(0.2), pytest.approx(0.5)]}
    assert measures.corruption_sources([group], "last") == ["drawn, 100 test images, mean over 0 kinds"]
    assert len(measures.corruption_sources([group, evaluated("b", other | {"corruption_images": 10})], "last")) == 2
    assert measures.corruptions(evaluated("a", first, {"corruptions": None}), "last") == {}
    stored = other | {"corruptions_from": "CIFAR-100-C at /data/CIFAR-100-C", "corruptions_in_mean": ["noise"]}
    moved = stored | {"corruptions_from": "CIFAR-100-C at ../CIFAR-100-C"}
    assert len(measures.corruption_sources([evaluated("a", stored, moved)], "last")) == 1
    unlike = measures.corruption_sources([evaluated("a", stored, stored | {"corruptions_in_mean": ["blur"]})], "last")
    text = "CIFAR-100-C at /data/CIFAR-100-C, 100 test images, mean over 1 kinds"
    assert unlike == [f"{text} (noise)", f"{text} (blur)"]
