"""Runs on more than one machine, by the engines that schedule them: Ray, and Slurm through submitit.

An engine is a function that starts a command of the package and gives something to look at as at a process: `engine.start` with
another place to run. All machines see the project, the environment and the folder of the study under the same paths.
"""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wrn_jax.runtime.errors import Interrupted, UserError
from wrn_jax.studies.engine import Place, Start
from wrn_jax.studies.runs import command_line

_HOURS = 4
"""That a job of Slurm may take if nothing is said; a run that takes longer is saved and goes on in the next one."""

_AGAIN = ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "TIMEOUT", "REQUEUED")
"""States of a job of Slurm that say nothing against its command."""

PASSED_BY = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that Slurm sends to all of a job: the command saves and ends, and the process that waits for it tells how."""

_DIE_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.executable, sys.argv[1:])"
"""Linux kills the process when the one that started it is gone: two would write to one run if it were started elsewhere."""


@dataclasses.dataclass(eq=False)
class Job:
    """A command on a cluster, looked at as at a process. One that others than the study interrupted is submitted anew.

    Attributes:
      submit: submits it; what the engine knows it by, None if it could not be.
      code: its exit code by that, None as long as it has none.
      cancel: interrupts it by that.
    """

    submit: Callable[[], Any]
    code: Callable[[Any], int | None]
    cancel: Callable[[Any], object]
    returncode: int | None = None

    def __post_init__(self) -> None:
        self._handle = self.submit()
        self._is_terminated = False

    def poll(self) -> int | None:
        """Its exit code, None as long as it is queued or at work."""
        if self.returncode is None:
            self.returncode = 1 if self._handle is None else self.code(self._handle)
        if self.returncode == Interrupted.code and not self._is_terminated:
            self._handle, self.returncode = self.submit(), None
        return self.returncode

    def terminate(self) -> None:
        """Has it save and end, or leave the queue."""
        self._is_terminated = True
        if self._handle is not None:
            self.cancel(self._handle)


def run_here(arguments: Sequence[str], log: str, folder: str, environment: Mapping[str, str]) -> int:
    """What a cluster calls on one of its machines: runs a command of the package; its exit code.

    Args:
      arguments: of the command, its name first.
      log: file that its output is added to.
      folder: where it runs.
      environment: is added to that of this machine.
    """
    if threading.current_thread() is threading.main_thread():
        for number in PASSED_BY:
            signal.signal(number, lambda *_: None)
    command = [sys.executable, "-c", _DIE_WITH_PARENT, *command_line([*arguments])]
    with open(log, "ab") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | dict(environment), stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        while True:
            try:
                if (code := process.poll()) is not None:
                    return code
                time.sleep(0.2)
            except KeyboardInterrupt:  # how both engines cancel
                process.terminate()


def find(name: str, options: Sequence[str], folder: Path) -> Start:
    """The engine of this name. Raises UserError: it is not installed or there, or does not take these options.

    Args:
      name: ray or slurm.
      options: texts KEY=VALUE, for the engine.
      folder: of the study.
    """
    known: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        if not key or not value:
            raise UserError(f"--engine-options {option}: should be KEY=VALUE")
        known[key] = _value(value)
    return _ray(known) if name == "ray" else _slurm(known, folder)


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"--engine {extra}: needs the package {name}: pip install 'wrn_jax[{extra}]'") from None


def _value(text: str) -> Any:
    """A number, or what else is JSON; else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _environment() -> dict[str, str]:
    """What of this process's environment a run acts by."""
    return {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_", "TFDS_"))}


def _ray(options: dict[str, Any]) -> Start:
    """Each command as a task that asks for its device, and that Ray starts anew when its machine is gone."""
    engine = _package("ray", "ray")
    if not engine.is_initialized():
        handler = signal.getsignal(signal.SIGTERM)
        try:
            engine.init(address=os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, configure_logging=False)
        except ConnectionError:
            raise UserError("--engine ray: no cluster; ray start --head begins one, RAY_ADDRESS names one") from None
        signal.signal(signal.SIGTERM, handler)  # which Ray has replaced; a study ends its own way
    named = {"num_gpus", "num_cpus", "resources"} & options.keys()
    wanted = {"max_retries": -1} | ({} if named else _devices(engine.nodes())) | options
    try:
        task = engine.remote(run_here).options(**wanted)
    except (ValueError, TypeError) as error:
        raise UserError(f"--engine-options: {' '.join(str(error).split())}") from None

    def code(reference: Any) -> int | None:
        if not engine.wait([reference], timeout=0)[0]:
            return None
        try:
            return engine.get(reference)
        except engine.exceptions.TaskCancelledError:
            return Interrupted.code

    def start(arguments: Sequence[str], log: Path, place: Place) -> Job:
        told = arguments, str(log.absolute()), os.getcwd(), _environment() | dict(place.environment)
        return Job(_telling(lambda: task.remote(*told), log, None), _telling(code, log, 1), engine.cancel)

    return start


def _devices(nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run asks of Ray if nothing is said: a GPU, else all chips, or else all cores, of the smallest machine with any."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    counts = {kind: [int(node[kind]) for node in resources if node.get(kind, 0) >= 1] for kind in ("GPU", "TPU", "CPU")}
    if counts["GPU"]:
        return {"num_gpus": 1}
    if counts["TPU"]:
        return {"resources": {"TPU": min(counts["TPU"])}}
    return {"num_cpus": min(counts["CPU"], default=1)}


def _slurm(options: dict[str, Any], folder: Path) -> Start:
    """Each command as a job that submitit submits."""
    library = _package("submitit", "slurm")
    cluster = options.pop("cluster", "slurm")
    try:
        executor = library.AutoExecutor(folder=folder.absolute() / "logs" / "slurm", cluster=cluster)
        executor.update_parameters(**{"name": "wrn_jax", "timeout_min": 60 * _HOURS} | options)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--engine slurm: {' '.join(str(error).split())}") from None
    except (NameError, AssertionError, TypeError) as error:
        raise UserError(f"--engine-options: {' '.join(str(error).split())}") from None

    def code(job: Any) -> int | None:
        if not job.done():
            return None
        return Interrupted.code if job.exception() is not None and job.state.startswith(_AGAIN) else job.result()

    def start(arguments: Sequence[str], log: Path, place: Place) -> Job:
        told = arguments, str(log.absolute()), os.getcwd(), dict(place.environment)
        submit = _telling(lambda: executor.submit(run_here, *told), log, None)
        return Job(submit, _telling(code, log, 1), lambda job: job.cancel(check=False))

    return start


def _telling(call: Callable[..., Any], log: Path, otherwise: int | None) -> Callable[..., Any]:
    """`call`, that writes an error of the engine into the log of the command, and then returns `otherwise`."""

    def told(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:  # whatever an engine raises: the other runs go on
            with open(log, "a", encoding="utf-8") as file:
                file.write(f"the engine: {type(error).__name__}: {' '.join(str(error).split())[:500]}\n")
            return otherwise

    return told
