"""Variants of a recipe, and the choice among them on the hold-out."""

import dataclasses
import json

import pytest

from tests import sample_runs
from wrn_jax import study
from wrn_jax.report import runs
from wrn_jax.report.render.markdown import to_markdown
from wrn_jax.runtime.errors import UserError
from wrn_jax.studies import choice, conduct, design, grid
from wrn_jax.studies.progress import Progress
from wrn_jax.studies.runs import Failure, members, missing
from wrn_jax.studies.summary import describe

KEYS = [f"--config.{key}={value}" for key, value in sample_runs.CHANGES.items()]
HOLD_OUT = "--config.data.validation_size=100"


def test_values_are_parted_by_commas_outside_of_brackets_and_quotations():
    table = "{epoch(1): Linear(0.0, 0.1, epochs(5)), epoch(6): 0.1}"
    assert grid.split("a", f"5e-4, {table},'x, y',[1, 2]") == ["5e-4", table, "'x, y'", "[1, 2]"]


def test_variants_are_called_by_what_is_varied_and_the_last_key_varies_fastest():
    arguments = ["optimizer.weight_decay=5e-4,1e-3", 'recipe.dropout=0.1,{"epoch 1": 0.1, "epoch 2": 0.2}']
    found = grid.variants(grid.parse(arguments))
    assert [name for name, _ in found] == [
        f"weight_decay={decay} dropout={dropout}" for decay in ("0.0005", "0.001") for dropout in ("0.1", "value2")
    ]
    assert found[1][1] == ("--config.optimizer.weight_decay=5e-4", f"--config.{arguments[1].replace('0.1,{', '{')}")
    alike = grid.parse(["augmentation_levels.full.hue=1", "augmentation_levels.reduced.hue=1"])
    assert grid.variants(alike)[0][0] == "augmentation_levels.full.hue=1 augmentation_levels.reduced.hue=1"
    assert grid.variants({}) == [("", ())]


@pytest.mark.parametrize(("arguments", "message"), [
    (["recipe.dropout"], "--vary 'recipe.dropout': should be KEY=VALUE,VALUE"),
    (["recipe.dropout=0.1", "recipe.dropout=0.2"], "--vary recipe.dropout: is given twice; give all its values at once"),
    (["recipe.dropout=0.1,0.2,0.1"], "--vary recipe.dropout: '0.1' is given twice"),
    (["recipe.dropout=0.1,"], "--vary recipe.dropout: a value is empty"),
    (['recipe.dropout={"epoch 1": 0.1'], "--vary recipe.dropout: a bracket is not closed"),
    (["recipe.dropout='0.1"], "--vary recipe.dropout: the quotation mark ' is not closed"),
    (["optimizer.weight_decy=0.1"], "unknown key 'optimizer.weight_decy'; did you mean 'optimizer.weight_decay'?"),
    (["optimizer.weight_decay=5"], "should be between 0 and 1"),
    (["optimizer.weight_decay=5e-4,0.0005"], "--vary optimizer.weight_decay: '5e-4' and '0.0005' make the same recipe of"),
    (["devices=1,2"], "--vary devices: '1' and '2' make the same recipe of session04"),
    (["optimizer.nesterov=false"], "--vary optimizer.nesterov: 'false' changes nothing of session04"),
    (["precision=float32,bfloat16"], "--vary precision: --config.precision sets it as well; choose one"),
    (["seed=1,2"], "--config.seed=1: a study has seeds 0, 1"),
    (["recipe.dropout=0.1", HOLD_OUT], "session04 dropout=0.1: has no hold-out to choose on; --config.data.validation_size="),
    (["data.validation_seed=0,1"], "are judged on other images (data.validation_seed = 0, 1)"),
])  # fmt: skip
def test_a_grid_that_is_none_is_refused_in_one_line(arguments, message):
    overrides = KEYS if HOLD_OUT in arguments else [*KEYS, HOLD_OUT]
    vary = [argument for argument in arguments if argument != HOLD_OUT]
    with pytest.raises(UserError) as refused:
        design.read_recipes(["session04"], overrides, grid.parse(vary))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_grid_and_how_is_chosen_are_written_down_and_nothing_is_evaluated(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(conduct, "run", lambda plan, *_: given.append(plan))
    arguments = ["session04", "--vary", "recipe.dropout=0.1,0.2", "--out", str(tmp_path), *KEYS, HOLD_OUT]
    study.main(arguments)
    given[0].write(tmp_path)
    study.main(["--out", str(tmp_path)])
    study.main(arguments)
    assert given[0] == given[1] == given[2]
    written = json.loads((tmp_path / "study.json").read_text())
    assert written["grid"] == {"recipe.dropout": ["0.1", "0.2"]}
    assert (written["measure"], written["test"]) == (design.CHOICE_MEASURE, design.CHOICE)
    member = members(given[0], tmp_path)[1]
    assert (member.recipe.name, member.name) == ("session04 dropout=0.2", "session04_dropout=0.2-seed0")
    accuracies = [0.1, 0.2, 0.3, 0.4, 0.5]
    path = sample_runs.write(tmp_path / "run", accuracies, valid=accuracies, checkpoints=[15], data__validation_size=100)
    assert missing(member, runs.load(str(path)), corruptions=False) is None
    with pytest.raises(UserError, match="--corruptions: is about test accuracies, and of a grid the best is chosen on the"):
        study.main(["--out", str(tmp_path), "--corruptions"])
    with pytest.raises(UserError, match="--seeds 4: a grid is chosen from with the 3 seeds that were planned"):
        study.main(["--out", str(tmp_path), "--seeds", "4"])
    with pytest.raises(UserError, match=r"--vary recipe\.dropout=0\.1: name the recipe too that it varies"):
        study.main(["--out", str(tmp_path), "--vary", "recipe.dropout=0.1"])


@pytest.fixture
def judged(tmp_path):
    """A grid of two recipes, two seeds: the first is ahead on the hold-out, the second on the test images."""
    texts = ("0.1", "0.2")
    recipes = tuple(
        design.Recipe(name=f"a dropout={text}", file="a", overrides=(f"--config.recipe.dropout={text}",), config={})
        for text in texts
    )
    plan = design.Design(began="", recipes=recipes, seeds=2, measure=design.CHOICE_MEASURE, test=design.CHOICE,
                         grid={"recipe.dropout": texts})  # fmt: skip
    known = {}
    for member in members(plan, tmp_path):
        valid, test = (0.55, 0.3111) if member.recipe is recipes[0] else (0.45, 0.7111)
        rise = [(epoch - 5) / 20 + member.seed / 500 for epoch in range(1, 6)]
        sample_runs.write(
            member.workdir, [test + change for change in rise], member.seed, [valid + change for change in rise],
            data__validation_size=100, recipe__dropout=float(member.recipe.name[-3:]),
        )  # fmt: skip
        known[member.name] = runs.load(str(member.workdir))
    return plan, members(plan, tmp_path), known


def report(judged, monkeypatch, failures=None):
    """The choice, and the text and figures that are written of it."""
    plan, every, known = judged
    written = []
    monkeypatch.setattr(choice.writing, "write_files", lambda document, figures, _: written.append((document, figures)))
    groups = runs.group(list(known.values()), [recipe.name for recipe in plan.recipes])
    progress = Progress(every, runs=known, failures=failures or {})
    reached = choice.reach(plan, groups, progress.is_over)
    choice.write(plan, reached, {}, describe(plan, progress), None)
    ((document, figures),) = written
    return reached, to_markdown(document), figures


def grouped(judged):
    """The same with the runs of a recipe together, as a report has them."""
    plan, every, known = judged
    return plan, every, dict(sorted(known.items(), key=lambda item: item[1].source.rpartition("-seed")[0]))


def test_chosen_is_the_best_on_the_hold_out_and_its_test_accuracy_alone_is_shown_once(judged, monkeypatch):
    reached, text, figures = report(grouped(judged), monkeypatch)
    assert reached.chosen.name == "a dropout=0.1"
    assert "**a dropout=0.1 is chosen** on the hold-out, of 2 recipes (55.10 ± 0.14 % validation accuracy" in text
    assert text.count("31.21 ± 0.14 %") == text.count("31.") == 1
    assert "71." not in text
    assert "0.71" not in json.dumps(figures)
    assert figures["test_accuracy"]["mean"] == pytest.approx(0.3121)
    assert figures["chosen"] == "a dropout=0.1"
    assert "a grid of 2 recipes (recipe.dropout = 0.1 and 0.2), seeds 0 to 1 of each" in text
    assert "weight average" not in text


def test_figures_of_a_weight_average_are_called_so(judged, monkeypatch):
    plan, every, known = grouped(judged)
    for name in ("a_dropout=0.1-seed0", "a_dropout=0.1-seed1"):
        rows = [dataclasses.replace(row, network="average", raw_test_accuracy=0.7111) for row in known[name].rows]
        known[name] = dataclasses.replace(known[name], rows=rows)
    _, text, _ = report((plan, every, known), monkeypatch)
    assert "Figures of a dropout=0.1 are of the weight average, from the epoch on where it begins." in text
    assert "71." not in text


def test_before_the_end_nothing_is_chosen_and_what_did_not_come_to_its_end_never_is(judged, monkeypatch):
    plan, every, known = grouped(judged)
    name = "a_dropout=0.1-seed1"
    known[name] = dataclasses.replace(known[name], rows=known[name].rows[:3])
    reached, text, figures = report((plan, every, known), monkeypatch)
    assert reached.chosen is None
    assert "**Nothing is chosen yet**, since runs are left. So far a dropout=0.1 is ahead (55.00 % validation" in text
    assert figures["test_accuracy"] is None
    assert "31." not in text
    reached, text, _ = report((plan, every, known), monkeypatch, {name: Failure(3, "loss")})
    assert reached.chosen.name == "a dropout=0.2"
    assert "a_dropout=0.1-seed1 diverged: loss. It is not chosen." in text
    reached, _, _ = report((plan, every, known), monkeypatch, {name: Failure(2, "memory")})  # which is tried again
    assert reached.chosen is None
