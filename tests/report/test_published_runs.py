"""The reference logs: figures that are known from elsewhere."""

import pytest

from wrn_jax.config import load_file
from wrn_jax.models.network import Network
from wrn_jax.report import published_runs


@pytest.mark.parametrize("name", published_runs.LOGS)
def test_what_ran_differs_from_what_was_described_and_kept_the_published_files(name):
    executed, described = published_runs.executed(name), published_runs.described(name)
    assert executed.recipe.learning_rate != described.recipe.learning_rate
    assert executed.recipe.dropout == described.recipe.dropout
    assert (executed.precision, executed.model.num_classes) == ("float16", 100)
    files = published_runs.PUBLISHED[name].files
    assert set(files.values()) - {99} == set(described.recipe.checkpoint_epochs)


def test_steps_and_parameters_are_those_of_the_network():
    config = load_file("configs/session02.py")
    assert -(-50_000 // config.recipe.batch_size) == published_runs.STEPS_PER_EPOCH
    assert Network(config.model, 100, "float32").num_parameters == published_runs.NUM_PARAMETERS
