"""The published comparison, its tables typed in as facts: the report on the two logs carries the same figures, or names the
difference.
"""

import functools

import pytest

from tests import sample_runs
from tests.sample_runs import cells, tables
from wrn_jax.report import measures, published_runs
from wrn_jax.report.sections import published_comparison

# Epoch: session 02, session 04, difference.
EPOCHS = {
    1: ("6.64", "4.15", "+2.49"),
    5: ("29.37", "28.71", "+0.66"),
    10: ("47.60", "51.11", "-3.51"),
    20: ("53.06", "57.15", "-4.09"),
    25: ("55.27", "58.95", "-3.68"),
    30: ("57.44", "61.43", "-3.99"),
    40: ("59.54", "63.88", "-4.34"),
    41: ("59.50", "65.03", "-5.53"),
    50: ("62.94", "66.27", "-3.33"),
    60: ("64.38", "69.31", "-4.93"),
    70: ("66.21", "70.37", "-4.16"),
    71: ("65.92", "70.72", "-4.80"),
    75: ("67.37", "71.74", "-4.37"),
    80: ("68.20", "71.89", "-3.69"),
    81: ("68.40", "72.15", "-3.75"),
    90: ("69.53", "70.00", "-0.47"),
    93: ("70.95", "71.41", "-0.46"),
    99: ("70.69", "72.98", "-2.29"),
    100: ("71.20", "69.64", "+1.56"),
}
# What the report says at an epoch, from the table of transitions: the table of epochs has some of it a row early.
TRANSITIONS = [
    ("epoch 41", "augmentation", "full", "reduced"),
    ("epoch 41", "mixup alpha", "0.2", "0.15"),
    ("epoch 51", "dropout", "0.3", "0.2"),
    ("epoch 51", "label smoothing", "0.1", "0.05"),
    ("epoch 61", "learning rate", "warm restarts", "cosine"),
    ("epoch 71", "augmentation", "reduced", "minimal"),
    ("epoch 71", "mixup alpha", "0.15", "off"),
    ("epoch 81", "dropout", "0.2", "0.1"),
]
CHECKPOINTS = {"session02": [10, 20, 25, 30, 40, 50, 60, 75, 90], "session04": [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]}
CONFIGURATION = [
    ("network", "WideResNet-28-10", "WideResNet-28-10"),
    ("parameters", "36,536,884", "36,536,884"),  # 36.5M
    ("batch size", "256", "256"),
    ("epochs", "100", "100"),
    ("dropout", "0.3 (constant)", "0.3 -> 0.2 (epoch 51) -> 0.1 (epoch 81)"),
    ("mixup alpha", "0.2 (constant)", "0.2 -> 0.15 (epoch 41) -> off (epoch 71)"),
    ("label smoothing", "0.1 (constant)", "0.1 -> 0.05 (epoch 51)"),
    ("augmentation", "full (constant)", "full -> reduced (epoch 41) -> minimal (epoch 71)"),
    ("highest rate", "0.1", "0.15"),
    ("warm-up", "0.01 to 0.1 over 5 epochs", "0.01 to 0.15 over 5 epochs"),
    ("weight decay (L2)", "0.001", "0.001"),
    ("gradient clipping (global norm)", "1", "1"),
    ("precision", "float16", "float16"),  # mixed
]
MILESTONES = {"session02": (10, 25, 50, 75, 100), "session04": (10, 40, 60, 81, 99, 100)}
# The epoch of the best model; the files beside it and the checkpoints.
BEST = {"session02": 100, "session04": 99}
FINAL = {"session02": {"final_model.pth": 100}, "session04": {}}


@functools.cache
def document():
    """All tables of the report on the two logs, by caption."""
    return tables([block for section in sample_runs.published_report().sections for block in section.blocks])


def named_differences():
    """{(figure, epoch): (published, log)} as the report lists them, where they differ."""
    table = document()["Where the published comparison differs from the logs of its runs"]
    assert all(stated != logged for _, _, stated, logged in table.rows)
    return {(what, int(epoch)): (stated, logged) for what, epoch, stated, logged in table.rows}


def same_or_named(what, epoch, stated, logged):
    """Whether the report has the document's figure, or says that it does not."""
    return stated == logged or named_differences().get((what, epoch)) == (stated, logged)


def is_accuracy(name, epoch, logged):
    """Whether the report has the document's test accuracy, or says that it does not."""
    return same_or_named(f"test accuracy (%), {name}", epoch, EPOCHS[epoch][published_runs.LOGS.index(name)], logged)


def test_the_table_of_epochs_is_the_published_one_but_for_the_named_cells():
    table = document()["Test accuracy by epoch"]
    changed = []
    for epoch, (first, second, difference) in EPOCHS.items():
        row = cells(table, str(epoch))
        for name, stated in (("session02", first), ("session04", second)):
            assert is_accuracy(name, epoch, row[f"{name} (%)"]), (epoch, name)
            changed += [(name, epoch)] * (stated != row[f"{name} (%)"])
        logged = row["session02 - session04 (points)"]
        assert same_or_named("test accuracy, session02 - session04 (points)", epoch, difference, logged), epoch
    documented = published_runs.DOCUMENTED
    assert changed == [(name, epoch) for epoch in EPOCHS for name in published_runs.LOGS if epoch in documented[name]]
    assert len(changed) == 13


def test_the_events_of_the_table_are_the_published_ones():
    table = document()["Test accuracy by epoch"]
    for name, epochs in CHECKPOINTS.items():
        for epoch in EPOCHS.keys() - {100}:
            assert ("checkpoint" in cells(table, str(epoch))[f"events of {name}"]) == (epoch in epochs), (name, epoch)
    assert "cycle 1 ends as published (not executed)" in cells(table, "25")["events of session02"]
    assert cells(table, "100")["events of session02"].endswith("best")
    assert cells(table, "99")["events of session04"] == "best"
    marked = {table.rows[index][0] for index in table.marked}
    assert marked == {"99", "100"}


def test_the_transitions_are_the_published_ones():
    rows = [row for row in document()["Transitions"].rows if row[0] == "session04" and row[1] != "epoch 6 + 1 update"]
    assert len(rows) == len(TRANSITIONS)
    for where, name, before, after in TRANSITIONS:
        ((start, end),) = [row[3:] for row in rows if row[1:3] == [where, name]]
        assert start.startswith(before)
        assert end.startswith(after)
        events = cells(document()["Test accuracy by epoch"], where.removeprefix("epoch "))["events of session04"]
        assert f"{name} {before}" in events  # in the row of that very epoch


def test_the_summary_is_the_published_one_but_for_the_named_cells():
    table = document()["The recipes at a glance"]
    assert ["test accuracy, best epoch (%)", "71.20", "72.98"] in table.rows
    assert ["best epoch", "100", "99"] in table.rows
    train = cells(table, "training accuracy, last epoch (%)")
    gap = cells(table, "final training less best test accuracy (points)")
    for name, stated_train, stated_gap in (("session02", "69.26", "-1.94"), ("session04", "97.85", "+24.87")):
        assert same_or_named(f"final training accuracy (%), {name}", 100, stated_train, train[name])
        assert same_or_named(f"final training less best test accuracy (points), {name}", 100, stated_gap, gap[name])
    assert (train["session04"], gap["session04"]) == ("98.96", "+25.98")
    assert cells(table, "notebook")["session02"] == "08_ERA_V4_Session-02.ipynb"
    assert cells(table, "published model")["session04"].endswith("cifar100-wideresnet-session04")


def test_the_configuration_is_the_published_one():
    table = document()["Configuration side by side"]
    for row in CONFIGURATION:
        assert (table.rows.index(list(row)) in table.marked) == (row[1] != row[2])
    row = cells(table, "learning rate as published, which never ran")
    restarts = "warm restarts 0.1 to 0.0001 every 25 epochs since epoch 1 (epoch 6)"
    assert row["session02"] == f"linear 0.01 to 0.1 over 5 epochs -> {restarts}"
    restarts = "warm restarts 0.15 to 0.0005 every 20 epochs since epoch 1 (epoch 6)"
    restarts += " -> cosine 0.15 to 1e-05 over 40 epochs (epoch 61)"
    assert row["session04"].endswith(restarts)


@pytest.mark.parametrize("name", published_runs.LOGS)
def test_milestones_and_files_are_the_published_ones_but_for_the_named_cells(name):
    table = document()[f"Milestones of {name}"]
    assert all(is_accuracy(name, epoch, cells(table, str(epoch))["test accuracy (%)"]) for epoch in MILESTONES[name])
    if name == "session04":
        assert cells(table, "10")["lead over session02 (points)"] == "+3.51"
        fall = cells(table, "100")["since the row above (points)"].removeprefix("-")
        assert same_or_named("fall after the best epoch (points), session04", 100, "3.34", fall)
    checkpoints = {f"checkpoint_epoch{epoch}.pth": epoch for epoch in CHECKPOINTS[name]}
    files = {"best_model.pth": BEST[name]} | checkpoints | FINAL[name]
    table = document()[f"Checkpoints of {name}"]
    assert [row[:2] for row in table.rows] == [[file, str(epoch)] for file, epoch in files.items()]
    assert all(is_accuracy(name, int(epoch), accuracy) for _, epoch, accuracy, _ in table.rows)


def test_the_margins_of_the_published_verdict_are_there():
    table = document()["The recipes aspect by aspect"]
    best = cells(table, "test accuracy, best epoch (%)")
    assert (best["ahead"], best["margin"], best["shown?"]) == ("session04", "1.78", "not judged")
    assert named_differences()["these gaps, session04 - session02 (points)", 100] == ("+26.81", "+27.92")
    changes = next(row for row in table.rows if row[0] == "transitions of the recipe")
    assert changes[1:3] == ["1", "9"]  # the published ones, and the end of both warm-ups


def test_the_verdict_says_what_the_document_could_not_know():
    texts = "\n".join(published_comparison.could_not_know(sample_runs.published()))
    for part in (
        "**n = 1.**",
        "**session02: the best epoch was picked on the test set** out of 100: epoch 100 with 71.20 %, which is the last.",
        "**session04: the best epoch was picked on the test set** out of 100: epoch 99 with 72.98 %, +3.39 points against the "
        "last.",
        "Session04 minus session02 is +1.78 points at the best epochs and -1.61 at the last.",
        "the rate never exceeded 0.01, and its cycles took updates, not epochs: it began a new one 744 times",
        "after epoch 99 it was 0.000254 (72.98 %), after epoch 100 it was 0.01 (69.59 %)",
        "is +2.97 points where the rate is in the lowest third of its range and +1.83 where it is in the highest",
        "session04's rises from 72.74 to 87.22 % in one epoch while its test accuracy goes from 70.00 to 69.03 %",
        "WRN-28-10 (Zagoruyko & Komodakis, 200 epochs) 80.75 %",
    ):
        assert part in texts


def test_one_log_alone_is_spoken_of_alone():
    groups = sample_runs.published()[1:]
    assert not [text for text in published_comparison.could_not_know(groups) if "session02" in text or "order reverses" in text]
    (table,) = published_comparison.differences(groups)
    assert {row[0].split(", ")[-1] for row in table.rows} == {"session04"}
    assert len(table.rows) == 8


def test_the_thirds_of_the_saw_tooth_are_those_of_the_logged_rates():
    """The same by the logged rates, which are those after the epoch: 0.01 and the floor bound the range."""
    rows = published_runs.rows("session04")[-20:]
    low = [row.test_accuracy for row in rows if row.moving["learning_rate"] <= 0.01 / 3]
    high = [row.test_accuracy for row in rows if row.moving["learning_rate"] >= 0.02 / 3]
    cycle = measures.rate_cycle(sample_runs.published()[1])
    assert cycle.low_third == (8, pytest.approx(sum(low) / len(low), abs=0.005))
    assert cycle.high_third == (8, pytest.approx(sum(high) / len(high), abs=0.005))
