"""Warm-up, cycles and restarts of a learning rate, in float32 as the timeline has it."""

import numpy as np
import pytest

from wrn_jax.config import Config, Cosine, Linear, Recipe, WarmRestarts, epochs
from wrn_jax.config.rates import restarts, warm_up_end
from wrn_jax.config.timeline import Timeline


def timeline_rates(rate, steps_per_epoch):
    config = Config(recipe=Recipe(epochs=20, learning_rate=rate))
    return Timeline(config, steps_per_epoch).values["learning_rate"]


@pytest.mark.parametrize("rate", [Cosine(0.1, 0.0, epochs(20)), Cosine(0.1, 1e-5, epochs(20)), Linear(0.1, 0.0, epochs(20))])
def test_rounding_on_a_long_way_down_is_no_restart(rate):
    assert len(restarts(timeline_rates(rate, 20_000))) == 0
    assert warm_up_end(timeline_rates(rate, 20_000)) == 0


def test_rounding_of_another_device_is_no_change():
    """An accelerator's cosine may be off in the last bit."""
    rates = np.full(100, 0.1, np.float32)
    rates[::2] = np.nextafter(rates[::2], np.float32(1))
    assert len(restarts(rates)) == 0
    assert warm_up_end(rates[1:]) == 0


def test_restarts_are_the_first_steps_of_the_cycles():
    rates = timeline_rates(WarmRestarts(0.1, 1e-4, epochs(1), multiplier=2), 100)
    assert restarts(rates).tolist() == [100, 300, 700, 1500]


def test_a_level_stretch_before_a_rise_belongs_to_the_cycle_before():
    rates = np.float32([3, 2, 1, 1, 1, 2, 2, 3, 1])
    assert restarts(rates).tolist() == [5]


@pytest.mark.parametrize(
    ("rates", "end"),
    [
        ([1, 2, 3, 3, 2], 2),
        ([1, 1, 2, 2, 1, 5], 2),
        ([3, 3, 2, 5], 0),
        ([1, 1, 1], 0),
        ([1, 2, 3], 2),
        ([2], 0),
        ([0, 0], 0),
    ],
)
def test_the_warm_up_ends_where_the_first_rise_does(rates, end):
    assert warm_up_end(np.float32(rates)) == end
