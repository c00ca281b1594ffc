"""Two recipes side by side."""

import pytest

from wrn_jax.config import Config, OneCycle, WarmRestarts, epoch, epochs
from wrn_jax.config.timeline import Timeline
from wrn_jax.planning import difference


def test_an_update_of_the_last_epoch_is_in_that_epoch():
    late = {"recipe.epochs": 30, "recipe.dropout": {"epoch 1": 0.1, f"step {30 * 352 - 1}": 0.2}}
    a, b = (Timeline(Config().override(changes), 352) for changes in ({"recipe.epochs": 30}, late))
    lines = difference.phases_of_two(a, b, "dropout", ("A", "B"))
    assert ["30.99", "0.2"] in [line.split() for line in lines]


@pytest.mark.parametrize(
    ("rate", "other", "shared"),
    [
        ({epoch(6): WarmRestarts(0.1, 0, epochs(5))}, {epoch(6): WarmRestarts(0.1, 0, epochs(5), since=epoch(6))}, True),
        ({epoch(6): WarmRestarts(0.1, 0, epochs(5))}, {epoch(6): WarmRestarts(0.1, 0, epochs(5), since=epoch(3))}, False),
        ({epoch(6): OneCycle(0.01, 0.1, 0, epochs(9))}, {epoch(6): OneCycle(0.01, 0.1, 0, epochs(9), rise=0.4)}, False),
        ({epoch(6): 0.1}, {epoch(6): 0.1000001}, False),
    ],
    ids=["the same clock", "another clock", "another rise", "digits that are not written"],
)
def test_what_is_shared_has_the_same_words_and_values(rate, other, shared):
    recipes = [{"recipe.epochs": 30, "recipe.learning_rate": {epoch(1): 0.0} | phases} for phases in (rate, other)]
    a, b = (Timeline(Config().override(recipe), 10) for recipe in recipes)
    assert difference.is_shared(a, b, "learning_rate") == shared


def test_a_phase_says_where_its_own_clock_starts():
    rate = {
        epoch(1): 0.0,
        epoch(6): WarmRestarts(0.1, 0, epochs(5), since=epoch(3)),
        epoch(9): OneCycle(0.01, 0.1, 0, epochs(9)),
    }
    line = Timeline(Config().override({"recipe.epochs": 30, "recipe.learning_rate": rate, "recipe.scale": 2}), 10)
    assert [text for _, text in difference.phase_texts(line, "learning_rate")] == [
        "0",
        "warm restarts 0.1 to 0 every 10 epochs since epoch 5",
        "one cycle 0.01 to 0.1 to 0 over 18 epochs, the first 30 % up",
    ]
