"""The course of recipes: tables by epoch, transitions, milestones, portraits, checkpoints, selection."""

import pytest

from tests import sample_runs
from tests.sample_runs import cells
from wrn_jax.report import published_runs
from wrn_jax.report.render.blocks import Text
from wrn_jax.report.runs import Group, Run
from wrn_jax.report.sections import epochs

CURVE = [0.1, 0.3, 0.5, 0.4, 0.45]


def test_epochs_are_told_with_differences_and_events(tmp_path):
    groups = [
        sample_runs.recipe(tmp_path, "a", [CURVE, [0.2, 0.2, 0.2, 0.2, 0.25]]),
        sample_runs.recipe(tmp_path, "b", [CURVE], recipe__dropout=0.1),
    ]
    table = epochs.epochs(groups)
    assert [row[0] for row in table.rows] == ["1", "2", "3", "4", "5"]
    row = cells(table, "3")
    assert row["a (%)"] == "35.00 ± 21.21"
    assert row["a - b (points)"] == "-15.00"
    assert row["events of a"].endswith(
        "dropout 0.3 -> 0.2 after 2 updates, label smoothing 0.1 -> 0.05 after 2 updates, best of 1 of 2 runs"
    )
    assert row["events of b"].endswith("label smoothing 0.1 -> 0.05 after 2 updates, best")
    assert cells(table, "2")["events of b"] == "checkpoint, cycle 2 ends"
    assert table.marked == {2, 4}


def test_three_recipes_share_a_column_of_events(tmp_path):
    groups = [
        sample_runs.recipe(tmp_path, name, [CURVE], recipe__mixup_alpha=alpha)
        for name, alpha in (("a", 0.1), ("b", 0.2), ("c", 0.3))
    ]
    events = cells(epochs.epochs(groups), "5")["events"]
    assert events == "checkpoint (all); dropout 0.2 -> 0.1 (all)"


def test_runs_of_unlike_length_leave_cells_empty(tmp_path):
    groups = [sample_runs.recipe(tmp_path, "a", [CURVE]), sample_runs.recipe(tmp_path, "b", [CURVE[:2]], recipe__dropout=0.1)]
    row = cells(epochs.epochs(groups), "4")
    assert (row["b (%)"], row["a - b (points)"]) == ("-", "-")


def test_long_runs_show_the_epochs_that_matter():
    found = epochs.table_epochs(sample_runs.published())
    assert set(published_runs.DOCUMENTED_EPOCHS) <= set(found)
    assert {6, 51, 61} <= set(found)  # around transitions
    assert len(found) < 30


def test_published_cycles_are_told_as_not_executed():
    events = epochs.events_by_epoch(sample_runs.published()[0])
    assert events[25] == ["checkpoint", "cycle 1 ends as published (not executed)"]
    assert not [text for texts in events.values() for text in texts if text.endswith("ends")]


def test_transitions_of_the_published_table():
    table = epochs.transitions(sample_runs.published())
    assert ["session04", "epoch 41", "augmentation", "full", "reduced"] in table.rows
    assert ["session04", "epoch 71", "mixup alpha", "0.15", "off"] in table.rows


def test_without_transitions_there_is_a_sentence(tmp_path):
    constant = {
        f"recipe__{name}": value
        for name, value in (
            ("learning_rate", 0.1),
            ("dropout", 0.1),
            ("mixup_alpha", 0.1),
            ("label_smoothing", 0.1),
            ("augmentation", "full"),
        )
    }
    found = epochs.transitions([sample_runs.recipe(tmp_path, "a", [CURVE], **constant)])
    assert isinstance(found, Text)
    csv = Group("csv", (Run("csv", "csv", tuple(published_runs.rows("session02"))),))
    assert "Of csv none is recorded." in epochs.transitions([csv]).text


@pytest.mark.parametrize(("index", "published"), [(0, {10, 25, 50, 75, 100}), (1, {10, 40, 60, 81, 99, 100})])
def test_milestones_hold_the_published_ones(index, published):
    assert published <= epochs.milestone_epochs(sample_runs.published()[index]).keys()


def test_milestones_count_from_the_row_above():
    groups = sample_runs.published()
    table = epochs.milestones(groups[1], groups)
    row = cells(table, "100")
    assert (row["since the row above (points)"], row["lead over session02 (points)"], row["what"]) == ("-3.39", "-1.61", "last")
    assert cells(table, "10")["lead over session02 (points)"] == "+3.51"
    assert cells(table, "99")["what"] == "best, chosen on the test set"
    assert cells(table, "81")["what"] == "first epoch after the last change"
    assert cells(table, "5")["what"] == "warm-up ends"


def test_portraits_tell_what_the_figures_say(tmp_path):
    group = sample_runs.recipe(tmp_path, "a", [CURVE])
    head, bullets = epochs.portraits([group])
    assert head.text == "**a** (1 run)"
    assert (
        bullets.items[0]
        == "Test accuracy after the last epoch (5): 45.00 %; at the best epoch (3, chosen on the test set): 50.00 %."
    )
    assert "Gap under augmentation: -1.00 points; clean gap: not evaluated." in bullets.items[1]
    assert (
        bullets.items[2]
        == "Test accuracy was below that of the epoch before after 1 of 4 epochs, by 10.00 points at most (epoch 4)."
    )
    assert bullets.items[4] == "8 transitions, 7 of them beside the learning rate."


def test_checkpoints_are_listed_with_their_accuracies(tmp_path):
    path = sample_runs.write(tmp_path / "a", CURVE, checkpoints=(4, 10, 12, 20))
    from wrn_jax.report import runs

    (group,) = runs.group([runs.load(str(path))])
    assert epochs.artifacts(group).rows == [
        ["a", "checkpoints/4", "1", "10.00", "-"],
        ["a", "checkpoints/10", "within one", "-", "-"],
        ["a", "checkpoints/12", "3", "50.00", "best"],
        ["a", "checkpoints/20", "5", "45.00", "last"],
    ]
    assert epochs.artifacts(sample_runs.recipe(tmp_path, "b", [CURVE])).text == "b: no checkpoints."


def test_selection_is_best_minus_last(tmp_path):
    group = sample_runs.recipe(tmp_path, "a", [CURVE], valid=[0.1, 0.2, 0.3, 0.9, 0.4], data__validation_size=100)
    (row,) = epochs.selection([group]).rows
    assert row[:7] == ["a-seed0", "45.00 (5)", "40.00 (4)", "the hold-out", "-5.00", "50.00 (3)", "+5.00"]
    assert row[7] == "45.00 ± 5.00 (3)"
