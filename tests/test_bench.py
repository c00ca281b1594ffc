"""The benchmark: what it counts, how it takes turns, its command line. No clock."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small import xla_flags

pytestmark = pytest.mark.slow

SCRIPT = Path("scripts/bench.py")
specification = importlib.util.spec_from_file_location("bench", SCRIPT)
bench = importlib.util.module_from_spec(specification)
specification.loader.exec_module(bench)


def test_spread():
    assert bench.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


class Fake:
    """A side whose steps take as long as it says, apart from the first one after a pause."""

    def __init__(self, name, seconds, asked):
        self.name, self.seconds, self.asked = name, seconds, asked

    def ask(self, count):
        self.asked.append(self.name)
        return [(9 * self.seconds, 9 * self.seconds), *[(self.seconds, 2 * self.seconds)] * (count - 1)]


def test_sides_take_turns_and_the_ratio_is_of_the_first_to_the_second(capsys):
    asked = []
    found = bench.in_turn([Fake("jax", 0.5, asked), Fake("torch", 1.0, asked)], batch_size=8, rounds=3, seconds=2)
    assert asked[2:] == ["jax", "torch", "torch", "jax", "jax", "torch"]
    assert found["jax"]["wall"]["median"] == 16
    assert found["torch"]["cpu"]["median"] == 4
    assert found["ratio"]["wall"] == found["ratio"]["cpu"] == {"median": 2.0, "min": 2.0, "max": 2.0}
    assert capsys.readouterr().err.count("round") == 3


def side(folder, script):
    """A side whose Python is a shell script."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return bench.Side(str(python), {"side": "torch", "threads": 1, "same_allocator": False})


def test_a_side_may_say_much_and_one_that_ends_is_told(tmp_path):
    with side(tmp_path, """head -c 300000 /dev/zero >&2; echo '{"version": "1"}'; cat""") as talkative:
        assert talkative.about == {"version": "1"}
    with pytest.raises(bench.BenchError, match=r"^the torch process ended: no such module$"):
        side(tmp_path, "echo first >&2; echo no such module >&2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to measure"),
        (["--models", "28-10"], "'28-10' is not DEPTH-WIDEN_FACTOR:BATCH_SIZE"),
        (["--models", "11-1:8"], "depth 6n + 4"),
        (["--models", "10-1:8", "--against", "torch"], "--torch-python"),
        (["--models", "10-1:8", "--rounds", "0"], "'0' is not a whole number above 0"),
        (["--models", "10-1:8", "--against", "torch", "--torch-python", "/nowhere"], "/nowhere: No such file"),
        (
            ["--models", "10-1:8", "--evaluation", "--precision", "bfloat16", "--against", "torch", "--torch-python", "true"],
            "is compared in float32",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments, said):
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    *progress, last = done.stderr.splitlines()
    assert last.startswith("bench.py: ")
    assert said in last
    assert all("compiling" in line for line in progress)


@pytest.fixture
def own_devices(monkeypatch):
    """The CPU as it is found, and not as eight devices."""
    monkeypatch.setenv("XLA_FLAGS", xla_flags(None))


def test_a_tiny_run_fills_every_figure(tmp_path, own_devices):
    target = tmp_path / "bench.json"
    command = [sys.executable, SCRIPT, "--models", "10-1:64", "--against", "plain", "--rounds", "1", "--seconds", "0.01"]
    command += ["--augmentation", "trivial"]
    done = subprocess.run([*command, "--threads", "1", "--json", target], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ratio to plain" in done.stdout
    (step,) = json.loads(target.read_text())["steps"]
    assert step["model"] == "10-1"
    assert list(step["seconds_per_part"]) == ["augment", "forward", "backward", "update"]
    for key in ("compile_seconds", "peak_memory_bytes", "peak_operations_per_second", "share_of_peak"):
        assert step[key] > 0, key


def test_a_tiny_evaluation_against_the_plain_convolutions(tmp_path, own_devices):
    target = tmp_path / "bench.json"
    command = [sys.executable, SCRIPT, "--evaluation", "--models", "10-1:64", "--against", "plain", "--rounds", "1"]
    done = subprocess.run([*command, "--seconds", "0.01", "--json", target], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "evaluation" in done.stdout
    (found,) = json.loads(target.read_text())["steps"]
    assert found["images_per_second"]["ratio"]["wall"]["median"] > 0
