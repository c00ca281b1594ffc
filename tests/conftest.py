"""Strict settings for all tests: eight simulated CPU devices, no implicit broadcasting, caches in temporary folders."""

import atexit
import os
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
# Compiling is most of the time the tests take, and many compile the same programs: share them, subprocesses included.
_programs = tempfile.mkdtemp(prefix="wrn_jax-tests-")
atexit.register(shutil.rmtree, _programs, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs
os.environ["MPLCONFIGDIR"] = _programs

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def _private_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's cache of decoded images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
