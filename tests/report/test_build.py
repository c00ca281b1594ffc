"""The report as a whole: what stands where, and that every sentence has its figures."""

import dataclasses
import shutil

import pytest

from tests import sample_runs
from tests.sample_runs import cells, published, published_report, right, tables
from wrn_jax.report import build
from wrn_jax.report.render.blocks import Plot, Table, Text
from wrn_jax.report.render.markdown import to_markdown
from wrn_jax.report.runs import Group

SECTIONS = [
    "Summary", "Recipe cards", "Speed and cost", "Figures",
    "Configuration", "Accuracy by epoch", "Curves", "What moved", "Milestones", "Each recipe by itself", "Artifacts",
    "Over seeds", "Image by image", "Best against last epoch", "The gap under augmentation, and the clean one",
    "Calibration and corruption", "Where in the cycle of the rate the evaluations fell", "Verdict",
    "Against the published comparison", "How to reproduce it", "Caveats",
]  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Two recipes of two seeds, with evaluations after their best and last epochs."""
    groups = []
    for name, dropout, base in (("a", 0.1, 0.4), ("b", 0.2, 0.5)):
        curves = [[0.1, 0.2, 0.3, base + 0.02, base + seed / 100] for seed in range(2)]
        correct = [{epoch: right(int(400 * curve[epoch - 1])) for epoch in (4, 5)} for curve in curves]
        folder = tmp_path_factory.mktemp(name)
        groups.append(sample_runs.recipe(folder, name, curves, correct, recipe__dropout=dropout, checkpoints=(16, 20)))
    return groups


@pytest.fixture(scope="module")
def two(evaluated):
    """The same without evaluations."""
    return [Group(group.name, tuple(dataclasses.replace(run, evaluations=()) for run in group.runs)) for group in evaluated]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A recipe with one run, whose best epoch is its last."""
    return sample_runs.recipe(tmp_path_factory.mktemp("one"), "a", [[0.1, 0.2, 0.3, 0.4, 0.5]])


def section(document, heading):
    """The blocks of a section."""
    return next(section.blocks for section in document.sections if section.heading == heading)


def test_sections_come_in_their_order_and_those_without_content_go(one):
    assert [section.heading for section in published_report().sections] == SECTIONS
    without = [heading for heading in SECTIONS if heading not in ("Image by image", "Against the published comparison")]
    assert [section.heading for section in build.build([one]).sections] == without


def test_every_cell_is_filled_with_formatted_text_and_plots_have_names_of_their_own(evaluated):
    for document in (published_report(), build.build(evaluated), build.build(published()[:1])):
        blocks = [block for section in document.sections for block in section.blocks]
        for table in (block for block in blocks if isinstance(block, Table)):
            assert table.rows
            assert all(len(row) == len(table.columns) for row in table.rows), table.caption
            assert all(isinstance(cell, str) and cell for row in table.rows for cell in row), table.caption
            assert all(index < len(table.rows) for index in table.marked)
        names = [block.name for block in blocks if isinstance(block, Plot)]
        assert len(set(names)) == len(names)
        text = to_markdown(document)
        assert not [trace for trace in ("None", "nan", "np.float", "{", "}", "0x", " ,", "  ") if trace in text]


def test_the_verdict_comes_first_and_again_with_its_rules(two, one):
    document = build.build(two)
    first, last = section(document, "Summary")[0], section(document, "Verdict")[0]
    assert first == last
    assert first.kind == "plain"
    assert "b is better than a" in first.text
    rules = " ".join(section(document, "Verdict")[2].items)
    assert "p < 0.05" in rules
    assert "two finished runs" in rules
    table = tables(section(document, "Verdict"))["The recipes aspect by aspect"]
    assert cells(table, "test accuracy, last epoch (%)")["shown?"].startswith("yes (p = 0.0")
    assert cells(table, "gap under augmentation, last epoch (points)")["shown?"] == "-"
    # On logs it is refused, and ends with what their comparison could not know.
    assert section(published_report(), "Summary")[0].kind == "warning"
    assert section(published_report(), "Verdict")[-1].items[0].startswith("**n = 1.**")
    assert not [text for text in section(build.build([one]), "Verdict")[-1].items if "n = 1." in text]


def test_it_opens_with_a_sentence_a_figure_and_a_table_and_folds_the_rest(two):
    document = build.build(two, operations={"a": 2e15, "b": 1e15})
    text, plot, table, *_ = document.sections[0].blocks
    assert (type(text), plot.name, plot.marks, table.caption) == (Text, "opening", (), "What the recipes reach and cost")
    assert [section.folded for section in document.sections] == [False] + [True] * (len(document.sections) - 1)
    assert [row[0] for row in table.rows] == ["b", "a"]
    row = cells(table, "a")
    assert (row["runs (n)"], row["test accuracy, last epoch (%)"], row["epochs"]) == ("2", "40.50 ± 0.71", "5")
    assert row["against b (points)"].startswith("-10.00 (-")
    assert row["operations of a run"] == "2.00e+15"
    assert "time of a run" not in row  # none is recorded


def test_many_recipes_are_not_all_in_the_title(one):
    assert build.build([Group(name, one.runs) for name in "abcd"]).title == "4 recipes compared"


def test_with_many_recipes_tables_grow_with_the_recipes_and_not_with_their_pairs(evaluated):
    six = [Group(name, evaluated[place % 2].runs) for place, name in enumerate("abcdef")]
    document = build.build(six)
    wide = [block for section in document.sections for block in section.blocks if isinstance(block, Table)]
    assert max(len(table.columns) for table in wide) == 6 + 4  # aspects: with ahead, margin and whether it is shown
    assert len(tables(section(document, "Image by image"))["Image by image, last epoch"].rows) == 15
    assert len(tables(section(document, "What moved"))["Transitions"].rows) == 6
    assert "**No difference shown between b and 5 of the others**." in section(document, "Summary")[0].text
    assert Text("Pair by pair: see “Over seeds”.") in section(document, "Verdict")


def test_a_best_epoch_that_was_chosen_on_the_test_set_is_flagged_unless_it_is_the_last(tmp_path, one):
    held_out = sample_runs.recipe(tmp_path, "h", [[0.1] * 5], valid=[0.1] * 5, data__validation_size=100)
    fell = sample_runs.recipe(tmp_path, "fell", [[0.1, 0.2, 0.3, 0.5, 0.4]], recipe__dropout=0.2)
    warnings = [block.text for block in build.build([one, fell, held_out]).sections[0].blocks if isinstance(block, Text)]
    assert "The best epoch of fell was chosen on the test set, which flatters its test accuracy." in warnings
    alone = [block.text for block in build.build([held_out]).sections[0].blocks if isinstance(block, Text)]
    assert not [text for text in alone if "flatters" in text]


def test_missing_evaluations_are_told_as_commands(two, evaluated, one):
    commands = build.missing_evaluations(two)
    source = two[0].runs[0].source
    assert commands[:2] == [f"python -m wrn_jax.evaluate --workdir {source} --checkpoint {which}" for which in ("best", "last")]
    assert len(commands) == 8
    assert commands == section(build.build(two), "How to reproduce it")[2].items
    assert build.missing_evaluations(published()) == build.missing_evaluations(evaluated) == []
    glance = section(build.build(evaluated), "Figures")[0]
    assert cells(glance, "clean gap, last epoch (points)")["a"] == "+10.00 ± 0.00"
    assert [command.rpartition(" ")[2] for command in build.missing_evaluations([one])] == ["last"]  # best and last are one


BEGUN = "a: not finished: a-seed0 (epoch 4 of 5), a-seed1 (epoch 3 of 5); none is, so all are taken as they were after epoch 3."
COUNTED = "a: not finished: a-seed1 (epoch 3 of 5); they count in the curves and epoch tables only."


@pytest.mark.parametrize(("lengths", "expected"), [((5, 5), []), ((5, 3), [COUNTED]), ((4, 3), [BEGUN])])
def test_unfinished_runs_are_told(tmp_path, lengths, expected):
    group = sample_runs.recipe(tmp_path, "a", [[0.1] * length for length in lengths])
    assert build.unfinished([group]) == expected
    assert [text for text in build.caveats([group]) if "finished" in text] == expected


def test_command_machine_and_versions_are_told(one):
    (row,) = section(build.build([one]), "How to reproduce it")[0].rows
    assert row[2:] == [
        "python -m wrn_jax.train --config configs/session04.py --config.seed=0",
        "a CPU (cpu, 2 cores)",
        "python 3.12.1, jax 0.12.0",
    ]
    assert build.command_of(published()[0].runs[0]).endswith("configs/session02_as_executed.py")


def test_caveats_follow_from_the_runs(tmp_path):
    path = sample_runs.write(tmp_path / "a-seed0", [0.1] * 5)
    sample_runs.evaluate(path, 5, right(60))
    header = sample_runs.write(tmp_path / "a-seed1", [0.2] * 5, seed=1) / "header.jsonl"
    header.write_text(header.read_text().replace("0.12.0", "0.10.2").replace('"rollbacks": 0', '"rollbacks": 2'))
    shutil.copy("wrn_jax/report/published_logs/session02.csv", tmp_path / "log.csv")
    groups = sample_runs.load(*(tmp_path / name for name in ("a-seed0", "a-seed1", "log.csv")))
    caveats = build.caveats([*groups, published()[1]])
    for part in (
        "a n = 2; log n = 1; session04 n = 1",
        "Scaled recipes: a by 0.05",
        "unlike numbers of updates: a 20; session04 19,600",
        "whether label smoothing is part of it is not recorded",
        "Of log only a log is known",
        "a: its runs were made by unlike versions or machines",
        "a-seed1: rollbacks to a checkpoint: 2; skipped updates: 0",
        "a-seed0, epoch 5: 15.00 % as evaluated, 10.00 % as recorded in training",
    ):
        assert [text for text in caveats if part in text], part


def test_early_stopping_chooses_the_last_epoch(tmp_path):
    group = sample_runs.recipe(tmp_path, "a", [[0.1, 0.3, 0.2]], early_stopping_patience=1)
    caveat = "a-seed0: stopped early, after epoch 3 of 5, by what the test set said; so its last epoch was chosen."
    assert caveat in build.caveats([group])


def test_a_title_may_be_given(one):
    assert [build.build([one]).title, build.build([one], "Mine").title] == ["a", "Mine"]
    assert published_report().title == "session02 against session04"
