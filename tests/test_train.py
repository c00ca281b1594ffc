"""The command as a user calls it: in a process of its own, interrupted, resumed, misused."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.small import ARGUMENTS, finish, metrics, start
from wrn_jax import command, train
from wrn_jax.models.network import Network
from wrn_jax.runtime import cores, devices
from wrn_jax.training.checkpoints import Checkpoints
from wrn_jax.training.optimizer import make_optimizer
from wrn_jax.training.state import create_state
from wrn_jax.training.workdir import saved_config

pytestmark = pytest.mark.slow


def last_state(workdir):
    """(epoch, arrays) of the last checkpoint of a run."""
    config = saved_config(workdir)
    network, optimizer = Network(config.model, 100, "float32"), make_optimizer(config.optimizer)
    like = jax.eval_shape(lambda key: create_state(network, optimizer, key), jax.random.key(0))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        saved, state, _ = checkpoints.restore_last(like, devices.state_shardings(like, devices.make_mesh(1), "replicated"))
    is_key = lambda leaf: jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return saved.epoch, [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in jax.tree.leaves(state)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight") / "run"
    code, output, errors = finish("train", *ARGUMENTS, "--workdir", workdir)
    assert code == 0, errors
    assert errors == ""
    return workdir, output


def test_says_how_it_ended_and_how_to_evaluate(straight):
    workdir, output = straight
    *_, best, final, where, command = output.splitlines()
    assert best.startswith("best   epoch ")
    assert "(chosen on the hold-out)" in best
    assert final.startswith("final  epoch 5: validation ")
    assert str(workdir) in where
    code, evaluated, errors = finish("evaluate", *command.split("wrn_jax.evaluate ")[1].split())
    assert (code, errors) == (0, "")
    accuracy = next(line.split()[1] for line in evaluated.splitlines() if line.startswith("accuracy"))
    assert f"test {accuracy} (chosen" in best


def assert_same_run(workdir, straight, epochs=5):
    """The records, timings aside, and every bit of the last state are those of the run that nothing interrupted."""
    assert metrics(workdir) == metrics(straight)
    (epoch, state), (other_epoch, other) = last_state(workdir), last_state(straight)
    assert epoch == other_epoch == epochs
    for found, expected in zip(state, other, strict=True):
        np.testing.assert_array_equal(found, expected)


def interrupt(process, prefix, number):
    """Sends a signal when the process prints a line that starts with `prefix`; what it printed after, and its errors."""
    for line in process.stdout:
        if line.startswith(prefix):
            process.send_signal(number)
            break
    return process.communicate(timeout=120)


def test_a_signal_saves_within_the_epoch_and_exits_with_75(straight, tmp_path):
    arguments = [*ARGUMENTS, "--workdir", tmp_path / "run", "--resume=auto"]
    process = start("tests.slow_train", *arguments)
    _, errors = interrupt(process, "epoch 4, step 35", signal.SIGHUP)
    assert process.returncode == 75
    assert errors.startswith("train: SIGHUP: saved after step 3")
    assert len(errors.splitlines()) == 1
    code, output, errors = finish("train", *arguments)
    assert (code, errors) == (0, "")
    # It went on within epoch 4, not from its beginning.
    assert any(f"resuming at step {step} of 50" in output for step in range(36, 40))
    assert_same_run(tmp_path / "run", straight[0])
    assert len((tmp_path / "run" / "header.jsonl").read_text().splitlines()) == 2  # one for each start


@pytest.mark.skipif(cores.cpu_cores() < 2, reason="there is nothing to divide")
def test_a_cpu_is_divided_and_the_run_stays_so_on_fewer_cores(tmp_path):
    changes = {"devices": "none", "data.embedded_train": 228, "recipe.batch_size": 64, "recipe.scale": 0.02}
    arguments = [*ARGUMENTS, *(f"--config.{key}={value}" for key, value in changes.items())]
    assert finish("train", *arguments, "--workdir", tmp_path / "straight", devices=None)[0] == 0
    code, output, errors = finish("train", *arguments, "--workdir", tmp_path / "run", "--stop-after=1", devices=None)
    assert (code, errors) == (0, "")
    assert " cores as 2 devices)" in output
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, sorted(before)[:1])  # processes that are started here inherit it
        code, output, errors = finish("train", "--resume", "--workdir", tmp_path / "run", devices=None)
    finally:
        os.sched_setaffinity(0, before)
    assert (code, errors) == (0, "")
    assert "(cpu, 1 core as 2 devices)" in output
    assert_same_run(tmp_path / "run", tmp_path / "straight", epochs=2)
    command = ["evaluate", "--workdir", tmp_path / "run", "--config.eval_batch_size=64", "--no-train"]
    assert finish(*command, devices=None)[0] == 0
    (written,) = (tmp_path / "run" / "evaluations").glob("*.json")
    assert json.loads(written.read_text())["hardware"]["devices_used"] == 2


def test_kills_at_random_moments_change_nothing():
    """One of those that `scripts/soak.py` tries by the hundred: the same records, the same bits."""
    command = [sys.executable, "scripts/soak.py", "--kinds", "plain", "--kills", "1", "--seed", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_writes_nothing_outside_the_work_directory_and_the_caches(tmp_path, monkeypatch):
    here, home, cache, workdir = (tmp_path / name for name in ("here", "home", "cache", "run"))
    for folder in (here, home, cache):
        folder.mkdir()
    project = Path.cwd()
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("PYTHONPATH", str(project))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.chdir(here)
    arguments = ["--config", project / "configs/session04.py", *ARGUMENTS[2:]]
    code, output, errors = finish("tests.watched_train", *arguments, "--workdir", workdir)
    assert code == 0, errors
    touched = [Path(line.removeprefix("touched ")) for line in output.splitlines() if line.startswith("touched ")]
    assert workdir / "metrics.jsonl.tmp" in touched  # it does see what is written
    programs = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    allowed = (workdir, cache, programs, Path("/dev"), Path("/proc"))
    outside = [path for path in touched if not any(path.is_relative_to(folder) for folder in allowed)]
    assert outside == []
    assert [*here.iterdir(), *home.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config FILE is missing"),
        (["--config", "nowhere.py"], "nowhere.py: no such configuration file"),
        (["--config", "configs/session04.py", "--config.model.dept=16"], "did you mean 'model.depth'?"),
        (["--config", "configs/session04.py", "--config.model.depth=17"], "model.depth = 17: should be 6n + 4"),
        (["--config", "configs/session04.py", "--wrokdir", "x"], "--wrokdir x; did you mean --workdir?"),
        (["--resume"], "--resume needs --workdir"),
        (["--coordinator", "host:1"], "--coordinator: says where to meet the other processes of the run, with --distributed"),
        (["--processes", "2"], "--processes: says where to meet"),
        (["--process", "0"], "--process: says where to meet"),
        (["--resume", "--workdir", "nowhere"], "nowhere: holds no run"),
        (["--resume=auto", "--workdir", "nowhere"], "--config FILE is missing"),  # as for a first start
        (
            ["--config", "configs/session04.py", "--config.data.directory=/nowhere", "--config.data.download=false"],
            "python -m wrn_jax.prepare",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert command.run(lambda: train.main(arguments), "train") == 2
    output, errors = capsys.readouterr()
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert errors.startswith("train: ")
    assert "Traceback" not in output + errors


def test_divergence_is_one_line_and_exit_code_3(tmp_path):
    hot = [
        "--config.recipe.learning_rate=1000",
        "--config.optimizer.clip_norm=none",
        "--config.optimizer.weight_decay=1",
    ]
    code, _, errors = finish("train", *ARGUMENTS, *hot, "--workdir", tmp_path / "run")
    assert code == 3
    assert re.search(
        r"no longer finite at step \d+, in epoch 1: loss \S+, gradient norm \S+ .*; there is no checkpoint yet", errors
    )
    assert len(errors.splitlines()) == 1


def test_help_shows_the_keys():
    code, output, _ = finish("train", "--help")
    assert code == 0
    assert "model.depth  (int; default 28)" in output
    assert "--resume" in output
