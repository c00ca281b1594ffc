"""The recipe cards, and accuracy against cost."""

import dataclasses
import math
import xml.etree.ElementTree as ElementTree

import pytest

from tests import sample_runs
from wrn_jax.planning import cost
from wrn_jax.report import build, measures, verdict
from wrn_jax.report.render import strips
from wrn_jax.report.render.blocks import Card, Plot, Strip, Table
from wrn_jax.report.runs import Group
from wrn_jax.report.sections import cards


def timed(group, seconds):
    """The group with epochs that took so long."""
    return Group(
        group.name,
        tuple(
            dataclasses.replace(
                run, rows=tuple(dataclasses.replace(row, seconds=seconds, images_per_second=1234.5) for row in run.rows)
            )
            for run in group.runs
        ),
    )


@pytest.fixture
def two(tmp_path):
    curves = {"a": [[0.1, 0.2, 0.3, 0.35, 0.4], [0.1, 0.2, 0.3, 0.35, 0.42]], "b": [[0.1, 0.2, 0.3, 0.4, 0.5]]}
    changes = {"a": {}, "b": {"recipe__dropout": 0.1}}
    groups = [sample_runs.recipe(tmp_path, name, curves[name], **changes[name]) for name in "ab"]
    return [timed(groups[0], 60.0), groups[1]]


def test_a_card_says_what_a_recipe_is_costs_and_reaches_and_where(two):
    first, second = cards.cards(two, {"a": 1.234e15}).cards
    facts = dict(first.facts)
    assert facts["reaches"].startswith("41.00 ± 1.41 % test accuracy after the last epoch (n = 2; 95 % interval 28.29 to 53.71")
    assert facts["costs"] == "5 epochs, 20 updates, 1.23e+15 operations"
    assert facts["takes"] == "60 s an epoch, 1,234 images per second, 5 min a run"
    assert facts["on"] == "a CPU (cpu, 2 cores), float32"
    assert dict(second.facts)["takes"] == "not recorded"
    assert (facts.get("does not move"), dict(second.facts)["does not move"]) == (None, "dropout 0.1")
    assert [strip.label for strip in first.strips][:2] == ["learning rate", "dropout"]
    assert first.strips[1].span == "0.1 to 0.3"
    reached = first.strips[-1]
    assert (reached.label, reached.high[-1]) == ("test accuracy (%), lowest to highest run", pytest.approx(42))
    assert all(len(strip.edges) == len(strip.low) + 1 == len(strip.high) + 1 for strip in (*first.strips, *second.strips))


def test_intervals_are_explained_where_there_are_any(two, tmp_path):
    third = sample_runs.recipe(tmp_path, "c", [[0.1] * 5, [0.2] * 5], recipe__dropout=0.2)
    for groups, brackets, over in (
        (two[1:], False, ""), (two, False, "Intervals are over the seeds; none where n = 1."),
        ([*two, third], True, "Intervals are over the seeds; none where n = 1."),
        ([two[0], third], True, "Intervals are over the seeds."),
    ):  # fmt: skip
        note = cards.results(groups, {}).note
        assert ("In brackets" in note, note[note.find("Intervals") :] if "Intervals" in note else "") == (brackets, over)


def test_stronger_augmentation_stands_higher(tmp_path):
    levels = {"epoch 1": "minimal", "epoch 41": "full", "epoch 81": "reduced"}
    group = sample_runs.recipe(tmp_path, "a", [[0.1] * 5], recipe__augmentation=levels)
    (strip,) = [strip for strip in cards.cards([group], {}).cards[0].strips if strip.label == "augmentation"]
    assert (strip.span, strip.low) == ("minimal → full → reduced", [0.0, 2.0, 1.0])


def test_a_ramp_between_two_levels_is_a_slope(tmp_path):
    ramp = {"kind": "ramp", "start": "full", "end": "minimal", "over": "40 epochs"}
    group = sample_runs.recipe(tmp_path, "a", [[0.1] * 5], recipe__augmentation={"epoch 1": "minimal", "epoch 41": ramp})
    (strip,) = [strip for strip in cards.cards([group], {}).cards[0].strips if strip.label == "augmentation"]
    assert (strip.span, strip.low[0]) == ("minimal → full → minimal", 0.0)
    assert strip.low[-9:] == [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0]


def test_a_saw_tooth_is_a_band_of_few_parts():
    card = cards.cards(sample_runs.published(), {}).cards[0]
    rate = card.strips[0]
    assert len(rate.low) <= 340
    assert max(high - low for low, high in zip(rate.low, rate.high, strict=True)) > 0.009


def test_the_picture_of_a_card_is_svg_within_its_box():
    strip = Strip("a < b", "0 to 3", [0, 1, 2, 4], [0, math.nan, 3], [1, math.nan, 3])
    flat = Strip("flat", "2", [0, 4], [2], [2])
    text = strips.to_svg(Card("n", "**t**", 9, 'of "it"', [strip, flat], []), file=True)
    root = ElementTree.fromstring(text)
    _, _, width, height = map(float, root.get("viewBox").split())
    polygons = [node.get("points") for node in root.iter() if node.tag.endswith("polygon")]
    places = [tuple(map(float, point.split(","))) for points in polygons for point in points.split()]
    assert len(places) == 8 + 4
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    assert root.get("aria-label") == 'of "it"'
    assert "--line-1: #d55e00" in text
    assert "prefers-color-scheme: dark" in text


def test_accuracy_stands_against_the_first_cost_that_two_recipes_have(two):
    plot, table = cards.costs([timed(group, 60.0) for group in two], {})
    assert plot.x_label == "seconds of a run"
    assert [series.name for series in plot.series] == ["a", "b"]  # one is the best at the same cost: no line
    assert (plot.series[0].y, plot.series[1].low) == ([pytest.approx(41)], None)
    assert [row[-2] for row in table.rows] == ["no", "yes"]
    *_, note = cards.costs([*two, sample_runs.log_alone()], {"a": 1e15, "b": 5e16})
    assert note.text.endswith("since the cost is not recorded: csv.")
    plot, table = cards.costs(two, {"a": 1e15, "b": 5e16})
    assert (plot.x_label, plot.log_x, plot.series[1].x) == ("operations of a run (10^15)", True, [50.0])
    assert plot.series[-1].x == [1.0, 50.0]
    assert isinstance(plot, Plot)
    assert isinstance(table, Table)


def test_runs_that_ended_early_cost_what_they_took(two, tmp_path):
    curves = [[0.5, 0.45, 0.44], [0.5, 0.52, 0.51, 0.5], [0.1, 0.2]]  # two that ended early, and one that is not finished
    early = sample_runs.recipe(tmp_path, "early", curves, early_stopping_patience=2, recipe__dropout=0.3)
    groups, operations = [early, two[1]], {"early": 1e15, "b": 1e15}
    (card, other), (plot, table) = cards.cards(groups, operations).cards, cards.costs(groups, operations)
    assert dict(card.facts)["costs"] == "3.5 of 5 epochs, 14 updates, 7.00e+14 operations"
    assert dict(other.facts)["costs"] == "5 epochs, 20 updates, 1.00e+15 operations"
    assert (plot.x_label, [series.x for series in plot.series[:2]]) == ("operations of a run (10^15)", [[0.7], [1.0]])
    assert [row[2] for row in table.rows] == ["7.00e+14", "1.00e+15"]
    assert {row[0]: row[-1] for row in cards.results(groups, operations).rows} == {"early": "7.00e+14", "b": "1.00e+15"}
    assert "Where updates are dear: early takes the fewest (early 14, b 20)." in verdict.reach(groups).uses
    assert "The recipes take unlike numbers of updates: early 14; b 20." in build.caveats(groups)


def test_a_cost_of_nothing_has_no_logarithm(two):
    plot, _ = cards.costs([timed(two[0], 0.0), timed(two[1], 12.0)], {})
    assert not plot.log_x


def test_what_is_dominated():
    points = [(1.0, 0.5), (2.0, 0.4), (2.0, 0.7), (3.0, 0.7), (0.5, 0.1)]
    assert measures.not_dominated(points) == [4, 0, 2]


def test_operations_of_a_recipe_are_those_of_its_plan(two):
    group = two[0]
    forward = cost.recipe_operations(group.config, group.timeline) / 3 / 20 / 100
    network = cost.Network(group.config.model, 100, "float32")
    assert forward == cost.forward_operations(network, (32, 32, 3))
