"""The command as a user calls it: in a process of its own, interrupted, resumed, misused."""

import signal

import jax
import numpy as np
import pytest

from tests.small import ARGUMENTS, finish, metrics, start
from wrn_jax import loop
from wrn_jax import mesh as meshes
from wrn_jax.checkpoints import Checkpoints
from wrn_jax.optimizer import make_optimizer
from wrn_jax.state import Network


def last_state(workdir):
    """The arrays of the last checkpoint of a run."""
    config = loop.saved_config(workdir)
    network, optimizer = Network(config.model, 100, "float32"), make_optimizer(config.optimizer)
    like = jax.eval_shape(lambda key: network.create_state(optimizer, key), jax.random.key(0))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        last = checkpoints.list()[-1]
        state = checkpoints.restore(last.step, like, meshes.replicated(meshes.make_mesh(1)))
    return last.epoch, [
        np.asarray(jax.random.key_data(leaf) if leaf.dtype == like.key.dtype else leaf) for leaf in jax.tree.leaves(state)
    ]


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


def test_killed_and_resumed_gives_the_same_record_and_the_same_bits(straight, tmp_path):
    workdir = tmp_path / "run"
    process = start("train", *ARGUMENTS, "--workdir", workdir)
    for line in process.stdout:
        if line.startswith("epoch 3, step"):  # in the middle of epoch 3: its first steps are lost and happen again
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done_before = len(metrics(workdir))
    assert done_before == 2
    code, output, errors = finish("train", "--resume", "--workdir", workdir)
    assert (code, errors) == (0, "")
    assert "resuming after epoch" in output
    assert metrics(workdir) == metrics(straight[0])
    (epoch, state), (other_epoch, other) = last_state(workdir), last_state(straight[0])
    assert epoch == other_epoch == 5
    for found, expected in zip(state, other, strict=True):
        np.testing.assert_array_equal(found, expected)
    # Two starts, and the second says where it took up.
    assert len((workdir / "header.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config FILE is missing"),
        (["--config", "nowhere.py"], "nowhere.py: no such configuration file"),
        (["--config", "configs/session04.py", "--config.model.dept=16"], "did you mean 'model.depth'?"),
        (["--config", "configs/session04.py", "--config.model.depth=17"], "model.depth = 17: should be 6n + 4"),
        (["--config", "configs/session04.py", "--wrokdir", "x"], "unrecognized arguments: --wrokdir x"),
        (["--resume"], "--resume needs --workdir"),
        (["--resume", "--workdir", "nowhere"], "nowhere: holds no run"),
        (
            ["--config", "configs/session04.py", "--config.data.directory=/nowhere", "--config.data.download=false"],
            "python -m wrn_jax.prepare",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message):
    code, output, errors = finish("train", *arguments)
    assert code == 2
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
    assert "no longer finite" in errors
    assert len(errors.splitlines()) == 1


def test_help_shows_the_keys():
    code, output, _ = finish("train", "--help")
    assert code == 0
    assert "model.depth  (int; default 28)" in output
    assert "--resume" in output
