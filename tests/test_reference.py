"""The reference logs: figures that are known from elsewhere."""

import pytest

from wrn_jax import reference


@pytest.mark.parametrize(
    ("name", "best_epoch", "best", "last", "train"),
    [("session02", 100, 0.7120, 0.7120, 0.6926), ("session04", 99, 0.7298, 0.6959, 0.9896)],
)
def test_best_and_last_epoch_are_those_published(name, best_epoch, best, last, train):
    rows = reference.rows(name)
    assert [row["epoch"] for row in rows] == list(range(1, 101))
    top = max(rows, key=lambda row: row["test_accuracy"])
    assert (top["epoch"], round(top["test_accuracy"], 6)) == (best_epoch, best)
    assert round(rows[-1]["test_accuracy"], 6) == last
    assert round(rows[-1]["train_accuracy"], 6) == train


def test_the_document_differs_from_the_logs_in_thirteen_cells():
    cells = [(name, epoch) for name, by_epoch in reference.DOCUMENTED.items() for epoch in by_epoch]
    assert len(cells) == 13
    for name, epoch in cells:
        logged = 100 * reference.rows(name)[epoch - 1]["test_accuracy"]
        assert round(logged, 2) != reference.DOCUMENTED[name][epoch]
