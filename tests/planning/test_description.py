"""What a plan says of one recipe, without setting it up."""

import pytest

from wrn_jax.config import Config, load_file
from wrn_jax.config.timeline import Timeline
from wrn_jax.planning import description


def changed(**changes):
    """A run of 30 epochs of 352 updates, and its configuration; `recipe__dropout=0.1` changes recipe.dropout."""
    config = Config().override({"recipe.epochs": 30} | {key.replace("__", "."): value for key, value in changes.items()})
    return config, Timeline(config, 352)


@pytest.mark.parametrize(("changes", "line"), [
    ({}, "SGD, momentum 0.9, L2 0.001 on all parameters, clip to norm 1"),
    (
        {"optimizer__nesterov": True, "optimizer__decay": "kernels", "optimizer__clip_norm": None},
        "SGD, Nesterov momentum 0.9, L2 0.001 on kernels only, no clipping",
    ),
    (
        {
            "optimizer__momentum": {"epoch 1": 0.85, "epoch 11": 0.95},
            "optimizer__weight_decay": {"epoch 1": 5e-4, "epoch 2": 0.0},
        },
        "SGD, momentum that moves (0.85 to 0.95), L2 that moves (0 to 0.0005) on all parameters, clip to norm 1",
    ),
    (
        {"optimizer__momentum": 0.0, "optimizer__nesterov": True, "optimizer__weight_decay": 0.0},
        "SGD, no momentum, no L2, clip to norm 1",
    ),
])  # fmt: skip
def test_the_optimiser_is_one_line(changes, line):
    assert description.describe_optimizer(*changed(**changes)) == line


def test_bars_stand_below_each_other_whatever_the_names():
    config = load_file("trivial_late_sam")
    lines = description.sparklines(Timeline(config, 352), width=10)
    assert "cutmix_probability ████████     0 to 0.5"[:20] in {line[:20] for line in lines}
    assert {line.index("  0 to ") for line in lines} == {len("cutmix_probability") + 11}


def test_cutmix_s_alpha_is_shown_where_there_is_cutmix():
    for probability, is_shown in (
        (0.0, False),
        ({"epoch 1": 0.5, "epoch 2": 0.0}, True),
        ({"epoch 1": 0.0, "epoch 40": 1}, False),
    ):
        _, timeline = changed(recipe__cutmix_probability=probability)
        assert ("cutmix_alpha" in timeline.shown) == is_shown
        assert any(line.split()[2:] == ["cutmix_alpha", "1"] for line in description.transition_table(timeline)) == is_shown


def test_an_update_of_the_last_epoch_is_in_that_epoch():
    _, timeline = changed(recipe__dropout={"epoch 1": 0.1, f"step {30 * 352 - 1}": 0.2, "step 10560": 0.3})
    assert description.transition_table(timeline)[-1].split() == ["30.99", "10559", "dropout", "0.2"]
