"""The course of recipes: tables by epoch, transitions, milestones, portraits, checkpoints, selection."""

from tests.sample_runs import cells, load, log_alone, published, recipe, write
from wrn_jax.report.sections import epochs

CURVE = [0.1, 0.3, 0.5, 0.4, 0.45]


def test_epochs_are_told_with_differences_and_events(tmp_path):
    groups = [
        recipe(tmp_path, "a", [CURVE, [0.2, 0.2, 0.2, 0.2, 0.25]]),
        recipe(tmp_path, "b", [CURVE], recipe__dropout=0.1),
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


def test_three_recipes_share_a_column_of_events_and_shorter_runs_leave_cells_empty(tmp_path):
    recipes = {"a": (CURVE, 0.1), "b": (CURVE[:2], 0.2), "c": (CURVE, 0.3)}
    groups = [recipe(tmp_path, name, [curve], recipe__mixup_alpha=alpha) for name, (curve, alpha) in recipes.items()]
    row = cells(epochs.epochs(groups), "5")
    assert row["events"] == "checkpoint (all); dropout 0.2 -> 0.1 (all)"
    assert (row["b (%)"], row["a - b (points)"]) == ("-", "-")


def test_long_runs_show_the_epochs_that_matter():
    shown = epochs.table_epochs(published())
    assert {6, 51, 61} <= set(shown)  # around transitions
    assert len(shown) < 30


def test_published_cycles_are_told_as_not_executed():
    events = epochs.events_by_epoch(published()[0])
    assert events[25] == ["checkpoint", "cycle 1 ends as published (not executed)"]
    assert not [text for texts in events.values() for text in texts if text.endswith("ends")]


def test_without_transitions_there_is_a_sentence(tmp_path):
    names = ("learning_rate", "dropout", "mixup_alpha", "label_smoothing")
    constant = {f"recipe__{name}": 0.1 for name in names} | {"recipe__augmentation": "full"}
    assert epochs.transitions([recipe(tmp_path, "a", [CURVE], **constant)]).text == "No recipe changes a phase on its way."
    assert "Of csv none is recorded." in epochs.transitions([log_alone()]).text


def test_milestones_count_from_the_row_above():
    table = epochs.milestones(published()[1], published())
    row = cells(table, "100")
    assert (row["since the row above (points)"], row["lead over session02 (points)"], row["what"]) == ("-3.39", "-1.61", "last")
    assert [cells(table, epoch)["what"] for epoch in ("5", "81", "99")] == [
        "warm-up ends", "first epoch after the last change", "best, chosen on the test set",
    ]  # fmt: skip


def test_a_rate_of_zero_is_no_share_of_anything(tmp_path):
    _, bullets = epochs.portraits([recipe(tmp_path, "a", [CURVE], recipe__learning_rate=0.0)])
    assert "The rate before the last evaluation was 0." in bullets.items


def test_portraits_tell_what_the_figures_say(tmp_path):
    head, bullets = epochs.portraits([recipe(tmp_path, "a", [CURVE])])
    assert head.text == "**a** (1 run)"
    accuracies, training, falls, _, transitions = bullets.items
    assert accuracies == (
        "Test accuracy after the last epoch (5): 45.00 %; at the best epoch (3, chosen on the test set): 50.00 %."
    )
    assert "Gap under augmentation: -1.00 points; clean gap: not evaluated." in training
    assert falls == "Test accuracy was below that of the epoch before after 1 of 4 epochs, by 10.00 points at most (epoch 4)."
    assert transitions == "8 transitions, 7 of them beside the learning rate."


def test_checkpoints_are_listed_with_their_accuracies(tmp_path):
    (group,) = load(write(tmp_path / "a", CURVE, checkpoints=(4, 10, 12, 20)))
    assert epochs.artifacts(group).rows == [
        ["a", "checkpoints/4", "1", "10.00", "-"],
        ["a", "checkpoints/10", "within one", "-", "-"],
        ["a", "checkpoints/12", "3", "50.00", "best"],
        ["a", "checkpoints/20", "5", "45.00", "last"],
    ]
    assert epochs.artifacts(recipe(tmp_path, "b", [CURVE])).text == "b: no checkpoints."


def test_selection_is_best_minus_last(tmp_path):
    group = recipe(tmp_path, "a", [CURVE], valid=[0.1, 0.2, 0.3, 0.9, 0.4], data__validation_size=100)
    assert epochs.selection([group]).rows == [
        ["a-seed0", "45.00 (5)", "40.00 (4)", "the hold-out", "-5.00", "50.00 (3)", "+5.00", "45.00 ± 5.00 (3)"]
    ]
