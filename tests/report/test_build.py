"""The report as a whole: what stands where, and that every sentence has its figures."""

import shutil

import pytest

from tests import sample_runs
from tests.sample_runs import cells, right, tables
from wrn_jax.report import build, runs
from wrn_jax.report.render.blocks import Plot, Table, Text
from wrn_jax.report.render.markdown import to_markdown

SECTIONS = [
    "Summary", "Configuration", "Accuracy by epoch", "Curves", "What moved", "Milestones", "Each recipe by itself", "Artifacts",
    "Over seeds", "Image by image", "Best against last epoch", "The gap under augmentation, and the clean one",
    "Calibration and corruption", "Where in the cycle of the rate the evaluations fell", "Verdict",
    "Against the published comparison", "How to reproduce it", "Caveats",
]  # fmt: skip


def two_recipes(directory, evaluate=False):
    groups = []
    for name, dropout, base in (("a", 0.1, 0.4), ("b", 0.2, 0.5)):
        paths = []
        for seed in range(2):
            curve = [0.1, 0.2, 0.3, base + 0.02, base + seed / 100]
            path = sample_runs.write(
                directory / f"{name}-seed{seed}", curve, seed, recipe__dropout=dropout, checkpoints=(16, 20)
            )
            for epoch in (4, 5) if evaluate else ():
                sample_runs.evaluate(path, epoch, right(int(400 * curve[epoch - 1])))
            paths.append(path)
        groups += runs.group([runs.load(str(path)) for path in paths])
    return groups


def section(document, heading):
    """The blocks of a section."""
    return next(one.blocks for one in document.sections if one.heading == heading)


def test_the_sections_are_all_there_in_their_order():
    assert [one.heading for one in build.build(sample_runs.published()).sections] == SECTIONS


def test_without_logs_and_with_one_recipe_sections_without_content_go(tmp_path):
    headings = [one.heading for one in build.build([sample_runs.recipe(tmp_path, "a", [[0.1] * 5])]).sections]
    assert headings == [
        heading for heading in SECTIONS if heading not in ("Image by image", "Against the published comparison")
    ]


def test_tables_are_rectangular_and_plots_have_names_of_their_own(tmp_path):
    for groups in (sample_runs.published(), two_recipes(tmp_path, evaluate=True), sample_runs.published()[:1]):
        blocks = [block for one in build.build(groups).sections for block in one.blocks]
        for table in (block for block in blocks if isinstance(block, Table)):
            assert table.rows
            assert all(len(row) == len(table.columns) for row in table.rows), table.caption
            assert all(isinstance(cell, str) and cell for row in table.rows for cell in row), table.caption
            assert all(index < len(table.rows) for index in table.marked)
        names = [block.name for block in blocks if isinstance(block, Plot)]
        assert len(set(names)) == len(names)


def test_nothing_unformatted_gets_into_the_text(tmp_path):
    for groups in (two_recipes(tmp_path, evaluate=True), sample_runs.published()):
        text = to_markdown(build.build(groups))
        for trace in ("None", "nan", "np.float", "{", "}", "0x", " ,", "  "):
            assert trace not in text, trace


def test_the_verdict_comes_first_and_again_with_its_rules(tmp_path):
    document = build.build(two_recipes(tmp_path))
    first, last = section(document, "Summary")[0], section(document, "Verdict")[0]
    assert first == last
    assert first.kind == "plain"
    assert "b is better than a" in first.text
    table = tables(section(document, "Verdict"))["The recipes aspect by aspect"]
    assert cells(table, "test accuracy, last epoch (%)")["shown?"].startswith("yes (p = 0.0")
    assert cells(table, "gap under augmentation, last epoch (points)")["shown?"] == "-"


def test_a_refused_verdict_is_a_warning():
    assert section(build.build(sample_runs.published()), "Summary")[0].kind == "warning"


def test_the_verdict_on_logs_ends_with_what_their_comparison_could_not_know(tmp_path):
    last = section(build.build(sample_runs.published()), "Verdict")[-1]
    assert last.items[0].startswith("**n = 1.**")
    other = section(build.build([sample_runs.recipe(tmp_path, "a", [[0.1] * 5])]), "Verdict")[-1]
    assert not [text for text in other.items if "n = 1." in text]


def test_a_best_epoch_that_was_chosen_on_the_test_set_is_flagged(tmp_path):
    held_out = sample_runs.recipe(tmp_path, "h", [[0.1] * 5], valid=[0.1] * 5, data__validation_size=100)
    mixed = [sample_runs.recipe(tmp_path, "t", [[0.1] * 5]), held_out]
    warnings = [block.text for block in build.build(mixed).sections[0].blocks if isinstance(block, Text)]
    assert "The best epoch of t was chosen on the test set, which flatters its test accuracy." in warnings
    alone = [block.text for block in build.build([held_out]).sections[0].blocks if isinstance(block, Text)]
    assert not [text for text in alone if "flatters" in text]


def test_missing_evaluations_are_told_as_commands(tmp_path):
    groups = two_recipes(tmp_path)
    commands = build.missing_evaluations(groups)
    assert commands[:2] == [
        f"python -m wrn_jax.evaluate --workdir {tmp_path / 'a-seed0'} --checkpoint best",
        f"python -m wrn_jax.evaluate --workdir {tmp_path / 'a-seed0'} --checkpoint last",
    ]
    assert len(commands) == 8
    assert commands == section(build.build(groups), "How to reproduce it")[2].items
    assert build.missing_evaluations(sample_runs.published()) == []


def test_with_all_evaluations_none_is_missing(tmp_path):
    groups = two_recipes(tmp_path, evaluate=True)
    assert build.missing_evaluations(groups) == []
    assert cells(section(build.build(groups), "Summary")[1], "clean gap, last epoch (points)")["a"] == "+10.00 ± 0.00"


def test_a_checkpoint_that_is_best_and_last_is_evaluated_once(tmp_path):
    group = sample_runs.recipe(tmp_path, "a", [[0.1, 0.2, 0.3, 0.4, 0.5]])
    assert [command.rpartition(" ")[2] for command in build.missing_evaluations([group])] == ["last"]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((5, 5), []),
        ((5, 3), ["a: not finished: a-seed1 (epoch 3 of 5); they count in the curves and epoch tables only."]),
        (
            (4, 3),
            [
                "a: not finished: a-seed0 (epoch 4 of 5), a-seed1 (epoch 3 of 5); none is, so all are taken as they were after "
                "epoch 3."
            ],
        ),
    ],
)
def test_unfinished_runs_are_told(tmp_path, lengths, expected):
    group = sample_runs.recipe(tmp_path, "a", [[0.1] * length for length in lengths])
    assert build.unfinished([group]) == expected
    assert [text for text in build.caveats([group]) if "finished" in text] == expected


def test_commands_call_the_module(tmp_path):
    (group,) = [sample_runs.recipe(tmp_path, "a", [[0.1] * 5])]
    assert build.command_of(group.runs[0]) == "python -m wrn_jax.train --config configs/session04.py --config.seed=0"
    assert build.command_of(sample_runs.published()[0].runs[0]).endswith("configs/session02_as_executed.py")


def test_machine_and_versions_are_told(tmp_path):
    document = build.build([sample_runs.recipe(tmp_path, "a", [[0.1] * 5])])
    table = section(document, "How to reproduce it")[0]
    assert table.rows[0][3:] == ["1 x a CPU (cpu), 2 CPU cores", "python 3.12.1, jax 0.12.0"]


def test_caveats_follow_from_the_runs(tmp_path):
    path = sample_runs.write(tmp_path / "a-seed0", [0.1] * 5)
    sample_runs.evaluate(path, 5, right(60))
    sample_runs.write(tmp_path / "a-seed1", [0.2] * 5, seed=1)
    header = (tmp_path / "a-seed1" / "header.jsonl").read_text()
    (tmp_path / "a-seed1" / "header.jsonl").write_text(
        header.replace("0.12.0", "0.10.2").replace('"rollbacks": 0', '"rollbacks": 2')
    )
    shutil.copy("wrn_jax/report/published_logs/session02.csv", tmp_path / "log.csv")
    loaded = [runs.load(str(tmp_path / name)) for name in ("a-seed0", "a-seed1", "log.csv")]
    groups = [*runs.group(loaded), sample_runs.published()[1]]
    told = build.caveats(groups)
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
        assert [text for text in told if part in text], part


def test_early_stopping_chooses_the_last_epoch(tmp_path):
    group = sample_runs.recipe(tmp_path, "a", [[0.1, 0.3, 0.2]], early_stopping_patience=1)
    told = "a-seed0: stopped early, after epoch 3 of 5, by what the test set said; so its last epoch was chosen."
    assert told in build.caveats([group])


def test_a_title_may_be_given(tmp_path):
    group = sample_runs.recipe(tmp_path, "a", [[0.1] * 5])
    assert build.build([group]).title == "a"
    assert build.build([group], "Mine").title == "Mine"
    assert build.build(sample_runs.published()).title == "session02 against session04"
