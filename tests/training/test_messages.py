"""Whether a run that does not learn is told so, once, and one that learns is not; how to go on with a run."""

import dataclasses
import math
from pathlib import Path

import pytest

from tests.training.test_records import ROW
from wrn_jax.config import Config
from wrn_jax.config.timeline import Timeline
from wrn_jax.runtime import devices
from wrn_jax.training.messages import not_learning, to_go_on

WARM_UP = {"epoch 1": {"kind": "linear", "start": 0.01, "end": 0.1, "over": "2 epochs"}, "epoch 3": 0.1}


def told(losses, epochs=10, steps_per_epoch=200):
    """Which epochs (from 1) of these training losses are told of; the warm-up ends with epoch 2."""
    config = Config().override({"recipe.learning_rate": WARM_UP, "recipe.epochs": epochs})
    timeline = Timeline(config, steps_per_epoch)
    rows = [
        dataclasses.replace(ROW, epoch=epoch, step=epoch * steps_per_epoch, train_loss=loss)
        for epoch, loss in enumerate(losses, 1)
    ]
    return [number for number in range(1, len(rows) + 1) if not_learning(rows[:number], timeline, 100)]


GUESS = math.log(100)


@pytest.mark.parametrize(
    ("losses", "epochs"),
    [
        ([4.48, 4.17, 4.03, 3.87, 3.74, 3.47], []),  # session 04, WRN-16-2
        ([4.67, 4.63, 4.61, 4.55, 4.5, 4.2], []),  # it begins late, but within the time that it is given
        ([4.65, 4.62, 4.61, 4.605, 4.61, 4.60], [4]),  # once
        ([4.5, 4.4, 4.3, 4.2, 4.605, 4.605], [5]),  # it has forgotten
        ([GUESS] * 3 + [0.9901 * GUESS], [4]),
        ([GUESS] * 3 + [0.9899 * GUESS], []),
    ],
)
def test_a_run_that_guesses_after_the_warm_up_is_told_once(losses, epochs):
    assert told(losses) == epochs


def test_a_short_run_is_asked_at_its_end():
    assert told([4.67, 4.65, 4.64], epochs=3, steps_per_epoch=10) == [3]
    assert told([4.67, 4.65, 4.4], epochs=3, steps_per_epoch=10) == []


def test_a_run_goes_on_as_deterministic_as_it_was(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert to_go_on(Path("runs/a b")) == "'runs/a b'"
    devices.be_deterministic()
    assert to_go_on(Path("runs/a")) == "runs/a --deterministic"
