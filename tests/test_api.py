"""The package from Python: train, be interrupted, go on, evaluate, use the model, all in one process."""

import os
import signal

import numpy as np
import pytest

import wrn_jax
from tests.small import CHANGES, metrics
from wrn_jax.runtime import console
from wrn_jax.runtime.errors import Interrupted, UserError


def test_offers_what_it_lists():
    assert all(getattr(wrn_jax, name).__doc__ for name in wrn_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wrn_jax.nothing


def test_a_configuration_by_name():
    assert wrn_jax.load_config("session04", {"model.depth": 16}).model.depth == 16
    with pytest.raises(UserError, match=r"^session4: no such configuration file; recipes that are known by name: base, "):
        wrn_jax.load_config("session4")


@pytest.mark.slow
def test_a_session(tmp_path, monkeypatch, capsys):
    """Five epochs of ten steps, interrupted after the first."""
    config = wrn_jax.load_config("session04", CHANGES)
    workdir = tmp_path / "run"
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    say = console.say

    def say_and_interrupt(text, active=True):
        say(text, active)
        if text.startswith("epoch 1/5 "):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(console, "say", say_and_interrupt)
        with pytest.raises(Interrupted, match="SIGINT: saved after epoch 1"):
            wrn_jax.train_model(config, workdir)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert [row["epoch"] for row in metrics(workdir)] == [1]
    summary = wrn_jax.train_model(config, workdir, resume="auto")
    assert (summary.workdir, summary.last.epoch) == (workdir, 5)
    assert [row["epoch"] for row in metrics(workdir)] == [1, 2, 3, 4, 5]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ") and "images/s" in line]
    assert [line.split()[1] for line in printed] == [f"{epoch}/5" for epoch in range(1, 6)]  # each once

    figures = wrn_jax.evaluate_model(workdir, "last", "--no-train")
    assert figures["epoch"] == 5
    model = wrn_jax.load_model(workdir, "last")
    from wrn_jax.data import loading

    test = loading.load(config.data).test
    logits = model(test.images)
    assert (logits.shape, logits.dtype) == ((100, 100), np.float32)
    assert np.mean(logits.argmax(-1) == test.labels) == pytest.approx(figures["splits"]["test"]["accuracy"], abs=0.011)
    np.testing.assert_allclose(model(test.images[:3]), logits[:3], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"images: float32 \[1, 32, 32, 3\]; should be uint8 \[N, 32, 32, 3\], N at least 1"):
        model(np.zeros((1, 32, 32, 3), np.float32))
