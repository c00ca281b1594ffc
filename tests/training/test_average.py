"""Runs with a weight average: killed and resumed, begun late by a key, evaluated and exported as either network."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from tests.small import CHANGES, metrics
from wrn_jax import api, evaluate, export, publish
from wrn_jax.config import load_file
from wrn_jax.planning import cost
from wrn_jax.report.runs import load
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import Interrupted, UserError
from wrn_jax.training import average, loop, messages, origins
from wrn_jax.training.checkpoints import Checkpoints
from wrn_jax.training.records import CheckpointNotes, Origin, read_rows
from wrn_jax.training.setup import make_setup

pytestmark = pytest.mark.slow

AVERAGE = {"optimizer.average_decay": {"epoch 1": 0.0, "step 5": 0.99}}
LATE_SAM = {"optimizer.sam_rho": {"epoch 1": 0.0, "step 10": 0.1}}
# Few images, and nothing that is not the average's makes the programs longer.
PLAIN = load_file("configs/session04.py").override(
    CHANGES
    | {
        "devices": 1,
        "data.embedded_train": 200,
        "recipe.scale": 1.0,
        "recipe.epochs": 3,
        "recipe.batch_size": 20,
        "recipe.learning_rate": 0.1,
        "recipe.augmentation": "off",
        "recipe.dropout": 0.0,
        "recipe.mixup_alpha": 0.0,
        "recipe.label_smoothing": 0.0,
    }
)
CONFIG = PLAIN.override(AVERAGE | LATE_SAM)
"""Three epochs of five updates, the average from the second on, sharpness-aware in the third."""


@pytest.fixture(scope="module", autouse=True)
def _shared_programs():
    """All runs here have one recipe with an average, so their steps are compiled once; nothing is drawn."""
    compiled, compile_programs = {}, loop.compile_programs

    def shared(attempt):
        recipe = repr(attempt.setup.config.override({"optimizer.start_average": False}))
        if recipe not in compiled:
            compiled[recipe] = compile_programs(attempt)
        return compiled[recipe]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "compile_programs", shared)
        patch.setattr(loop, "draw", lambda attempt: None)
        yield
    assert len(compiled) <= 1


@pytest.fixture(scope="module")
def finished(tmp_path_factory, _shared_programs):
    """The run of `CONFIG`."""
    workdir = tmp_path_factory.mktemp("average") / "run"
    loop.train(CONFIG, workdir)
    return workdir


def state_of(workdir, config, start_average=False):
    setup = make_setup(config, devices.make_mesh(1))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        _, state, damaged = checkpoints.restore_last(setup.abstract_state, setup.shardings, start_average)
    assert not damaged
    return dataclasses.replace(state, key=jax.random.key_data(state.key))


def test_an_interrupted_run_ends_in_the_same_bits(finished, tmp_path, monkeypatch):
    stops = iter([None] * 7 + ["SIGTERM"])
    with monkeypatch.context() as patch:
        patch.setattr(loop.StopRequest, "received", lambda self, step: next(stops, None))
        with pytest.raises(Interrupted):
            loop.train(CONFIG, tmp_path / "run")
    loop.train(CONFIG, tmp_path / "run", resume=True)
    assert metrics(tmp_path / "run") == metrics(finished)
    jax.tree.map(np.testing.assert_array_equal, state_of(tmp_path / "run", CONFIG), state_of(finished, CONFIG))


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
        path = evaluate.evaluate(["--workdir", str(finished), "--checkpoint", "last", "--no-train", "--gallery", *arguments])
        record = json.loads(path.read_text())
        losses[record["network"]] = record["splits"]["test"]["loss"]
    assert losses["average"] == pytest.approx(row.test_loss, rel=1e-4)
    assert losses["raw"] == pytest.approx(row.raw_test_loss, rel=1e-4)
    output = capsys.readouterr().out
    assert ", weight average: 100 test images" in output
    assert ", without its weight average: 100 test images" in output
    galleries = {name: (finished / "evaluations" / f"{name}.html").read_text() for name in ("step-15", "step-15-raw")}
    assert ["without its weight average" in page for page in galleries.values()] == [False, True]
    state = state_of(finished, CONFIG)
    for network, params in ((None, state.average["params"]), ("raw", state.params)):
        model = api.load_model(finished, "last", network=network)
        jax.tree.map(np.testing.assert_array_equal, model.params, params)
        assert model.network == (network or "average")
    assert messages.of_average(row) == f" (average; raw {row.raw_test_accuracy:.2%})"
    facts = export.describe(export.restore(finished, "last"))
    assert (facts["network"], facts["accuracy"]) == ("average", pytest.approx(row.valid_accuracy))
    facts = export.describe(export.restore(finished, "last", "raw"))
    assert (facts["network"], facts["accuracy"]) == ("raw", None)


def test_a_published_model_says_which_network_it_is(finished, tmp_path):
    row = read_rows(finished / "metrics.jsonl")[-1]
    said = {"average": "their moving average over the updates", "raw": "those of the last update itself"}
    accuracy = {"average": row.test_accuracy, "raw": row.raw_test_accuracy}
    for name in ("average", "raw"):
        arguments = ["--workdir", finished, "--checkpoint", "last", "--network", name, "--repo", "user/model", "--dry-run"]
        publish.main([*map(str, arguments), "--out", str(tmp_path / name)])
        assert json.loads((tmp_path / name / "config.json").read_text())["network"] == name
        with safetensors.safe_open(tmp_path / name / "model.safetensors", "np") as file:
            assert (file.metadata() or {})["network"] == name
        card = (tmp_path / name / "README.md").read_text()
        assert said[name] in card
        assert f"| these weights | epoch 3 | {accuracy[name]:.2%} |" in card


def test_another_run_may_begin_with_either_network(finished):
    state, setup = state_of(finished, CONFIG), make_setup(PLAIN, devices.make_mesh(1))
    expected = {None: state.average["params"], "average": state.average["params"], "raw": state.params}
    for asked, params in expected.items():
        origin = Origin(kind="weights", source=str(finished), checkpoint="last", network=asked)
        beginning = origins.begin(setup, {}, origin)
        jax.tree.map(np.testing.assert_array_equal, beginning.state.params, params)
        assert beginning.origin.network == (asked or "average")
        assert beginning.origin.describe().endswith({"raw": ", not their average"}.get(asked, ", their average"))


def test_a_checkpoint_without_an_average_begins_one_by_a_key_alone(tmp_path):
    setup, averaged = (make_setup(config, devices.make_mesh(1)) for config in (PLAIN, CONFIG))
    assert setup.abstract_state.average is None
    more = cost.state_bytes(averaged.abstract_state) - cost.state_bytes(setup.abstract_state)
    assert more > 4 * setup.network.num_parameters
    workdir = tmp_path / "run"
    state = jax.jit(setup.create_state)(jax.random.key(PLAIN.seed))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(dataclasses.replace(state, step=jnp.int32(3)), 3, 0, None, CheckpointNotes(rollbacks=0))
    (workdir / "config.json").write_text(json.dumps(setup.config.to_dict()))
    with pytest.raises(UserError, match=r"--network average: .* no average"):
        export.restore(workdir, "last", "average")
    with pytest.raises(UserError, match=r"holds no average.*optimizer\.start_average=true"):
        loop.train(CONFIG, shutil.copytree(workdir, tmp_path / "without"), resume=True)
    begun = state_of(workdir, averaged.config, start_average=True).average
    jax.tree.map(np.testing.assert_array_equal, begun, average.init(state.params, state.batch_stats))
    loop.train(CONFIG.override({"optimizer.start_average": True}), workdir, resume=True)
    assert [row.network for row in read_rows(workdir / "metrics.jsonl")] == ["raw", "average", "average"]
