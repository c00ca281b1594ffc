"""Several processes on one machine, joined over loopback: the same training, one writer, and nobody waits for the dead."""

import socket
import time

import pytest

from tests.small import ARGUMENTS, CHANGES, finish, metrics, start
from wrn_jax.config import load_file
from wrn_jax.training import loop

pytestmark = pytest.mark.slow

EPOCHS = 2  # of five are enough here, where two cores serve two processes; the second is not finished
CHANGED = {"recipe.batch_size": 32, "devices": None}


def start_all(count, workdir, *arguments, devices=2):
    """The processes of one run, each with its own simulated devices, and a pause after each step."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    changed = [f"--config.{key}={value}" for key, value in CHANGED.items()]
    joined = ["--distributed", "--coordinator", address, "--processes", count]
    shared = [*joined, "--workdir", workdir, "--stop-after", EPOCHS, *arguments]
    return [
        start("tests.slow_train", *ARGUMENTS, *changed, *shared, "--process", index, devices=devices) for index in range(count)
    ]


def assert_trained_like_one(workdir, alone):
    (found,), (expected,) = metrics(workdir), metrics(alone)
    assert found["epoch"] == 1
    assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)  # the order of the sums differs
    assert found["learning_rate"] == expected["learning_rate"]


def wait_for(process, beginning):
    """Returns when the process prints a line that begins so."""
    next(line for line in process.stdout if line.startswith(beginning))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One epoch by one process on one device."""
    workdir = tmp_path_factory.mktemp("runs") / "alone"
    config = load_file("configs/session04.py").override(CHANGES | CHANGED | {"devices": 1})
    loop.train(config, workdir, stop_after=1)
    return workdir


def test_two_processes_of_two_devices_train_like_one_through_a_kill_and_a_preemption_notice_to_one(alone, tmp_path):
    arguments = ["--config.checkpoint_steps=2", "--resume=auto"]
    first, second = start_all(2, tmp_path / "run", *arguments)
    wait_for(first, "epoch 1, step")
    while not list((tmp_path / "run" / "checkpoints").glob("*/commit_success.txt")):
        assert first.poll() is None
        time.sleep(0.02)
    second.kill()
    killed = time.monotonic()
    _, errors = first.communicate(timeout=120)
    assert time.monotonic() - killed < 90
    assert first.returncode not in (0, None)
    last = errors.strip().splitlines()[-1]
    assert first.returncode != 4 or last.startswith("train: another process of this run is gone (")
    second.communicate()

    started = start_all(2, tmp_path / "run", *arguments)
    wait_for(started[0], "resuming at step ")
    wait_for(started[0], "epoch 1/5  loss")
    started[1].terminate()
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [75, 75], ended
    # All stop after the same step.
    first, second = [errors.strip().splitlines()[-1] for _, errors in ended]
    assert first == second
    assert first.startswith("train: SIGTERM: saved after ")
    assert_trained_like_one(tmp_path / "run", alone)
    # One of them writes, and says what happens.
    assert len((tmp_path / "run" / "header.jsonl").read_text().splitlines()) == 2
    assert "images/s" not in ended[1][0]


def test_two_processes_branch_from_a_run_of_one(alone, tmp_path):
    started = start_all(2, tmp_path / "run", "--branch-from", alone, "--config.seed=7")
    ended = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    first, second = metrics(tmp_path / "run")
    assert [first] == metrics(alone)
    assert second["epoch"] == EPOCHS


def test_distributed_without_a_shared_directory_or_coordinator_is_one_line(tmp_path):
    code, _, errors = finish("train", *ARGUMENTS, "--distributed")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "--distributed needs --workdir" in errors
    code, _, errors = finish("train", *ARGUMENTS, "--distributed", "--workdir", tmp_path / "run")
    waits, error = errors.splitlines()
    assert code == 2
    assert waits.startswith("waiting for the other processes where JAX finds them")
    assert error.startswith("train: --distributed: ")
