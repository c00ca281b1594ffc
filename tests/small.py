"""A run small enough for tests: session 04 in five epochs of ten steps on 160 drawn images, with a hold-out."""

import contextlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from unittest import mock

CHANGES = {
    "devices": 1,
    "model.depth": 10,
    "model.widen_factor": 1,
    "data.name": "embedded",
    "data.embedded_train": 260,
    "data.embedded_test": 100,
    "data.validation_size": 100,
    "recipe.scale": 0.05,
    "recipe.batch_size": 16,
    "eval_batch_size": 40,
}
ARGUMENTS = ["--config", "configs/session04.py", *(f"--config.{key}={value}" for key, value in CHANGES.items())]
TIMINGS = ("seconds", "images_per_second")


def xla_flags(devices):
    """XLA's settings for simulated devices, whose programs are compiled in a third of the time and run nearly as fast.

    With None for `devices` their number is not said.
    """
    quickly = "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
    if importlib.metadata.version("jax").startswith("0.10."):  # later versions have no others
        quickly += " --xla_cpu_use_fusion_emitters=false"
    return quickly if devices is None else f"--xla_force_host_platform_device_count={devices} {quickly}"


def start(module, *arguments, devices=8):
    """A command of the package, or a module by its full name, as a process on simulated devices, its output as text.

    It has as many devices as the tests themselves, whose compiled programs it then finds.
    """
    environment = os.environ | {"XLA_FLAGS": xla_flags(devices)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", module if "." in module else f"wrn_jax.{module}", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(module, *arguments, devices=8):
    """(exit code, standard output, standard error) of a command of the package."""
    process = start(module, *arguments, devices=devices)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


def metrics(workdir):
    """The records of a run without what a clock measured."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows]


def lines(path):
    """The lines of a file; none if it is not there."""
    return path.read_text().splitlines() if path.exists() else []


def process_of(workdir):
    """The number of the process that has a work directory."""
    (number,) = re.findall(r"process ([0-9]+) on", (workdir / ".lock").read_text())
    return int(number)


@contextlib.contextmanager
def each_program_once():
    """Within, runs in this process trace and compile the step of a configuration for the first of them alone."""
    from wrn_jax.training import loop  # commands that are started need none of it

    jitted, jit = {}, loop.jit_train_steps
    of_no_step = {
        "recipe.checkpoint_epochs": [], "checkpoint_steps": None, "early_stopping_patience": None, "on_nonfinite": "stop",
        "max_rollbacks": 3,
    }  # fmt: skip

    def jit_once(setup, *kind):
        key = (repr(setup.config.override(of_no_step)), setup.mesh, *kind)
        if key not in jitted:
            jitted[key] = jit(setup, *kind)
        return jitted[key]

    with mock.patch.object(loop, "jit_train_steps", jit_once):
        yield
