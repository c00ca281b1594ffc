"""Runs with a weight average: killed and resumed, begun late by a key, evaluated and exported as either network."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from tests.small import CHANGES, metrics
from wrn_jax import api, evaluate, export
from wrn_jax.config import load_file
from wrn_jax.planning import cost
from wrn_jax.report.runs import load
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import Interrupted, UserError
from wrn_jax.training import loop
from wrn_jax.training.checkpoints import Checkpoints
from wrn_jax.training.records import read_rows
from wrn_jax.training.setup import make_setup

pytestmark = pytest.mark.slow

AVERAGE = {"optimizer.average_decay": {"epoch 1": 0.0, "step 5": 0.99}}
LATE_SAM = {"optimizer.sam_rho": {"epoch 1": 0.0, "step 10": 0.1}}


def small_config(**changes):
    base = load_file("configs/session04.py").override(CHANGES | {"devices": 1, "recipe.scale": 0.03, "recipe.batch_size": 80})
    return base.override(changes)


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    monkeypatch.setattr(loop, "draw", lambda attempt: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three epochs of five updates, the average from the second on, sharpness-aware in the third."""
    workdir = tmp_path_factory.mktemp("average") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw", lambda attempt: None)
        loop.train(small_config(**AVERAGE, **LATE_SAM), workdir)
    return workdir


def state_of(workdir, config):
    setup = make_setup(config, devices.make_mesh(1))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        _, state, damaged = checkpoints.restore_last(setup.abstract_state, setup.shardings)
    assert not damaged
    return dataclasses.replace(state, key=jax.random.key_data(state.key))


def test_an_interrupted_run_ends_in_the_same_bits(finished, tmp_path, monkeypatch):
    config = small_config(**AVERAGE, **LATE_SAM)
    stops = iter([None] * 7 + ["SIGTERM"])
    with monkeypatch.context() as patch:
        patch.setattr(loop.StopRequest, "received", lambda self, step: next(stops, None))
        with pytest.raises(Interrupted):
            loop.train(config, tmp_path / "run")
    loop.train(config, tmp_path / "run", resume=True)
    assert metrics(tmp_path / "run") == metrics(finished)
    jax.tree.map(np.testing.assert_array_equal, state_of(tmp_path / "run", config), state_of(finished, config))


def test_rows_say_which_network_they_are_of(finished):
    rows = read_rows(finished / "metrics.jsonl")
    assert [row.network for row in rows] == ["raw", "average", "average"]
    assert (rows[0].raw_test_loss, rows[0].raw_valid_accuracy) == (rows[0].test_loss, rows[0].valid_accuracy)
    assert rows[1].raw_test_loss != rows[1].test_loss
    (note,) = load(str(finished)).notes
    assert "from epoch 2 on, figures of hold-out and test are of the weight average" in note


def test_evaluation_export_and_loading_take_either_network(finished, tmp_path, capsys):
    row = read_rows(finished / "metrics.jsonl")[-1]
    losses = {}
    for arguments in ([], ["--network", "raw"]):
        path = evaluate.main(["--workdir", str(finished), "--checkpoint", "last", "--no-train", *arguments])
        record = json.loads(path.read_text())
        losses[record["network"]] = record["splits"]["test"]["loss"]
    assert losses["average"] == pytest.approx(row.test_loss, rel=1e-4)
    assert losses["raw"] == pytest.approx(row.raw_test_loss, rel=1e-4)
    output = capsys.readouterr().out
    assert ", weight average: 100 test images" in output
    assert ", without its weight average: 100 test images" in output
    state = state_of(finished, small_config(**AVERAGE, **LATE_SAM))
    for network, params in ((None, state.average["params"]), ("raw", state.params)):
        model = api.load_model(finished, "last", network=network)
        jax.tree.map(np.testing.assert_array_equal, model.params, params)
    facts = export.describe(export.restore(finished, "last"))
    assert (facts["network"], facts["accuracy"]) == ("average", pytest.approx(row.valid_accuracy))
    facts = export.describe(export.restore(finished, "last", "raw"))
    assert (facts["network"], facts["accuracy"]) == ("raw", None)


def test_a_checkpoint_without_an_average_begins_one_by_a_key_alone(tmp_path, monkeypatch):
    plain, late = small_config(), {"optimizer.average_decay": {"epoch 1": 0.0, "step 10": 0.99}}
    setup = make_setup(plain, devices.make_mesh(1))
    assert setup.abstract_state.average is None
    assert (
        cost.state_bytes(make_setup(small_config(**late), devices.make_mesh(1)).abstract_state)
        > cost.state_bytes(setup.abstract_state) + 4 * setup.network.num_parameters
    )
    workdir = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop.StopRequest, "received", lambda self, step: "SIGTERM" if step == 10 else None)
        with pytest.raises(Interrupted):
            loop.train(plain, workdir)
    with pytest.raises(UserError, match=r"--network average: .* no average"):
        export.restore(workdir, "last", "average")
    with pytest.raises(UserError, match=r"holds no average.*optimizer\.start_average=true"):
        loop.train(small_config(**late), shutil.copytree(workdir, tmp_path / "without"), resume=True)
    loop.train(small_config(**late, **{"optimizer.start_average": True}), workdir, resume=True)
    assert [row.network for row in read_rows(workdir / "metrics.jsonl")] == [None, None, "average"]
