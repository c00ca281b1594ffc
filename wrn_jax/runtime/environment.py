"""Versions and hardware: what a number depends on."""

import importlib.metadata
import platform
import time
from pathlib import Path
from typing import Any

import jax

from wrn_jax.runtime import cores

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def now() -> str:
    """The time as records have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that the result depends on."""
    version_of = {"python": platform.python_version()}
    for name in ("wrn_jax", *PACKAGES):
        try:
            version_of[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version_of[name] = "not installed"
    return version_of


def hardware() -> dict[str, Any]:
    """The devices in use, and the machine around them."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind if device.platform != "cpu" else _cpu_name(),
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cpu": _cpu_name(),
        "cpu_cores": cores.cpu_cores(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
