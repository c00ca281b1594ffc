"""Strict settings for all tests: eight simulated CPU devices, no implicit broadcasting, caches in temporary folders.

Compiling is most of the time the tests take. So programs are optimised less (half the time, and they run as fast), and
all tests share them, subprocesses included. JAX writes such a file in place, and a reader may meet half of it, unless the
cache has a bound on its size: then it locks the folder.
"""

import atexit
import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

from tests.small import xla_flags

WORKER = os.environ.get("PYTEST_XDIST_WORKER")
if WORKER is None:
    CACHES = Path(tempfile.mkdtemp(prefix="wrn_jax-tests-"))
    PROGRAMS = CACHES / "programs"
    atexit.register(shutil.rmtree, CACHES, ignore_errors=True)
else:  # within the folder of the process that started this one, which removes it
    CACHES = Path(os.environ["MPLCONFIGDIR"]) / WORKER
    PROGRAMS = CACHES.parent / "programs"
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": xla_flags(devices=8),
    "JAX_COMPILATION_CACHE_DIR": str(PROGRAMS),
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(16 * 2**30),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",  # as the commands do where nothing is set
    "MPLCONFIGDIR": str(CACHES),
}

# A shell starts what stands before "&" with Ctrl-C ignored, which the processes of the tests would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(100_000, 50, 100)  # tracing makes objects by the million, hardly any of them rubbish


def pytest_collection_modifyitems(items):
    """Files with slow tests come first: the workers, which take whole files, then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _private_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's cache of decoded images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
