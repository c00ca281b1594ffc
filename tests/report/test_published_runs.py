"""The reference logs: figures that are known from elsewhere."""

import pytest

from wrn_jax.config import load_file
from wrn_jax.models.network import Network
from wrn_jax.report import published_runs


@pytest.mark.parametrize(
    ("name", "best_epoch", "best", "last", "train"),
    [("session02", 100, 0.7120, 0.7120, 0.6926), ("session04", 99, 0.7298, 0.6959, 0.9896)],
)
def test_best_and_last_epoch_are_those_published(name, best_epoch, best, last, train):
    rows = published_runs.rows(name)
    assert [row.epoch for row in rows] == list(range(1, 101))
    top = max(rows, key=lambda row: row.test_accuracy)
    assert (top.epoch, round(top.test_accuracy, 6)) == (best_epoch, best)
    assert round(rows[-1].test_accuracy, 6) == last
    assert round(rows[-1].train_accuracy, 6) == train


def test_the_document_differs_from_the_logs_in_thirteen_cells():
    cells = [(name, epoch) for name, by_epoch in published_runs.DOCUMENTED.items() for epoch in by_epoch]
    assert len(cells) == 13
    for name, epoch in cells:
        logged = 100 * published_runs.rows(name)[epoch - 1].test_accuracy
        assert round(logged, 2) != published_runs.DOCUMENTED[name][epoch]


@pytest.mark.parametrize("name", published_runs.LOGS)
def test_what_ran_differs_from_what_was_described(name):
    executed, described = published_runs.executed(name), published_runs.described(name)
    assert executed.recipe.learning_rate != described.recipe.learning_rate
    assert executed.recipe.dropout == described.recipe.dropout
    assert (executed.precision, executed.model.num_classes) == ("float16", 100)


@pytest.mark.parametrize("name", published_runs.LOGS)
def test_the_published_files_are_those_that_the_recipe_keeps(name):
    files = published_runs.PUBLISHED[name].files
    kept = load_file(f"configs/{name}.py").recipe.checkpoint_epochs
    assert set(files.values()) - {99} == set(kept)
    assert all(str(epoch) in file for file, epoch in files.items() if file.startswith("checkpoint"))


def test_steps_and_parameters_are_those_of_the_network():
    config = load_file("configs/session02.py")
    assert -(-50_000 // config.recipe.batch_size) == published_runs.STEPS_PER_EPOCH
    assert Network(config.model, 100, "float32").num_parameters == published_runs.NUM_PARAMETERS


@pytest.mark.parametrize("text", ["", "epoch\n1\n", "epoch,train_accuracy\n1,2\n"])
def test_what_is_no_log_is_refused_or_empty(text):
    try:
        assert published_runs.parse(text) == []
    except (KeyError, TypeError, ValueError):
        assert text
