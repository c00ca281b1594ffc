"""Where the runs of a study find room: a GPU each, shares of the CPU's cores, or all that there is, one after the other."""

import itertools
import os
import subprocess
import sys

from wrn_jax.runtime.errors import UserError
from wrn_jax.studies.engine import Place


def find(jobs: int | None) -> list[Place]:
    """As many places as runs shall go at a time, of the devices that the runs will find.

    Args:
      jobs: how many; None: one for each GPU, else one. A single run has all devices.

    Raises:
      UserError: there are fewer devices than that, or JAX cannot use those that are there.
    """
    if jobs == 1:
        return [Place()]
    platform, count = devices_of_runs()
    if platform == "tpu":
        if jobs:
            raise UserError(f"--jobs {jobs}: all chips of a TPU train one run together; leave it out")
        return [Place()]
    if platform == "cpu":
        return [Place()] if jobs is None else divided(jobs)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    jobs = count if jobs is None else jobs
    if jobs > count:
        raise UserError(f"--jobs {jobs}: there are {count} GPUs, and a run takes a whole one")
    return [Place()] if jobs == 1 else [Place({"CUDA_VISIBLE_DEVICES": name}) for name in names[:jobs]]


def divided(jobs: int) -> list[Place]:
    """The cores of this process in so many shares, nearly alike.

    Raises UserError if there are fewer cores, or the system does not let a process choose its own.
    """
    if not hasattr(os, "sched_getaffinity"):
        raise UserError(f"--jobs {jobs}: the cores of a CPU can be divided on Linux alone; leave it out")
    cores = sorted(os.sched_getaffinity(0))
    if jobs > len(cores):
        raise UserError(f"--jobs {jobs}: there are {len(cores)} CPU cores")
    ends = [index * len(cores) // jobs for index in range(jobs + 1)]
    return [Place(cores=frozenset(cores[begin:end])) for begin, end in itertools.pairwise(ends)]


def devices_of_runs() -> tuple[str, int]:
    """(platform, number) of the devices that a process of JAX finds; as one says that then ends. Raises UserError."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return "cpu", 1
    code = "import jax; print(jax.default_backend(), jax.device_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    words = done.stdout.split()
    if done.returncode or len(words) != 2:
        said = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise UserError(f"JAX cannot use the devices: {said[:200]}")
    return words[0], int(words[1])
