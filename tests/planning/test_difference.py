"""Two recipes side by side."""

from wrn_jax.config import Config
from wrn_jax.config.timeline import Timeline
from wrn_jax.planning import difference


def test_an_update_of_the_last_epoch_is_in_that_epoch():
    late = {"recipe.epochs": 30, "recipe.dropout": {"epoch 1": 0.1, f"step {30 * 352 - 1}": 0.2}}
    a, b = (Timeline(Config().override(changes), 352) for changes in ({"recipe.epochs": 30}, late))
    lines = difference.phases_of_two(a, b, "dropout", ("A", "B"))
    assert ["30.99", "0.2"] in [line.split() for line in lines]
