"""How figures are written."""

import pytest

from tests.sample_runs import published, recipe
from wrn_jax.config.timeline import Event
from wrn_jax.report import formats, measures
from wrn_jax.report.statistics import Difference, Summary


@pytest.mark.parametrize(("text", "expected"), [
    (formats.percent(0.712), "71.20"), (formats.percent(None), "-"),
    (formats.points(0.0161), "+1.61"), (formats.points(-0.0178), "-1.78"), (formats.points(None), "-"),
    (formats.spread(Summary(3, 0.4297, 0.0051, 0.41, 0.44)), "42.97 ± 0.51"),
    (formats.spread(Summary(1, 0.4297, None, None, None), sign="+"), "+42.97"),
    (formats.values([1.25, 1.35], 1, 3), "1.300 ± 0.071"), (formats.values(None), "-"),
    (formats.gaps([-0.0194]), "-1.94"), (formats.gaps(None), "not evaluated"),
    (formats.interval(0.4231, 0.4363), "42.31 to 43.63"), (formats.interval(-0.01, 0.02, "+"), "-1.00 to +2.00"),
    (formats.interval(None, None), "-"),
    (formats.difference(Difference(0.01, -0.002, 0.022, 0.08)), "+1.00 points (95 % interval -0.20 to +2.20, p = 0.080)"),
    (formats.p_value(0.0004), "p < 0.001"), (formats.p_value(0.0449), "p = 0.045"),
    (formats.p_value(0.0497), "p = 0.0497"), (formats.p_value(0.0503), "p = 0.0503"), (formats.p_value(0.9999), "p > 0.99"),
    (formats.p_value(None), "no spread to judge by"),
    (formats.rate(0.000254473), "0.000254"), (formats.rate(0.00999999977), "0.01"), (formats.rate(0.0), "0"),
    (formats.rate(None), "-"),
    (formats.share(0.998), "100"), (formats.share(0.144), "14"), (formats.share(0.00031), "0.031"),
    (formats.listed(["a", "b", "c"]), "a, b and c"), (formats.listed(["a"]), "a"), (formats.listed([]), "none"),
    (formats.count(1, "run"), "1 run"), (formats.count(1960, "update"), "1,960 updates"),
    (formats.transition(Event(5, 2, "mixup_alpha", "0.15", "0")), "mixup alpha 0.15 -> off"),
    (formats.setting("learning_rate", "0"), "0"),
])  # fmt: skip
def test_figures_are_written(text, expected):
    assert text == expected


def test_positions_count_from_the_first_update(tmp_path):
    plan = recipe(tmp_path, "a", [[0.1] * 5]).timeline
    positions = [formats.position(step, plan) for step in (0, 1, 4, 6)]
    assert positions == ["epoch 1", "epoch 1 + 1 update", "epoch 2", "epoch 2 + 2 updates"]


def test_epochs_of_runs_that_agree_are_told_once(tmp_path):
    group = recipe(tmp_path, "a", [[0.1, 0.3, 0.2, 0.1, 0.1], [0.3, 0.2, 0.1, 0.1, 0.1]])
    assert (formats.epochs_of(group, "last"), formats.epochs_of(group, "best")) == ("5", "2, 1")
    assert formats.spread_note([group]).startswith("Mean ± standard deviation")
    assert formats.spread_note(published()) == ""


def test_cutmix_is_among_the_conditions(tmp_path):
    cut = recipe(tmp_path, "a", [[0.1] * 5], recipe__cutmix_probability=0.5)
    assert (
        formats.conditions(cut) == "images with augmentation “minimal”, no mixup, CutMix for 50% of the batches and dropout 0.1"
    )


def test_the_conditions_are_those_of_the_last_epoch():
    assert [formats.conditions(group) for group in published()] == [
        "images with augmentation “full”, mixup alpha 0.2 and dropout 0.3",
        "images with augmentation “minimal”, no mixup and dropout 0.1",
    ]


def test_thirds_are_told_where_they_are_known(tmp_path):
    assert formats.thirds(measures.rate_cycle(published()[1])) == (
        "72.52 % where the rate was in the lowest third of its range, 70.04 % where it was in the highest (means over 8 and 8 "
        "of the last 20 epochs)"
    )
    assert formats.thirds(measures.rate_cycle(recipe(tmp_path, "a", [[0.1] * 5]))) == ""
