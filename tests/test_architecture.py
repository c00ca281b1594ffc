"""The house: imports point down, and importing the package does not pull in what nobody asked for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

RANKS = [
    {"errors"},
    {
        "interrupts",
        "schedules",
        "augment",
        "convolution",
        "objective",
        "embedded",
        "cifar",
        "mesh",
        "memory",
        "reference",
        "layout",
        "corruptions",
        "scores",
        "statistics",
        "document",
        "accelerators",
        "hlo",
    },
    {"config", "checkpoints", "records", "markdown", "page", "model"},
    {"command", "timeline", "optimizer", "archive"},
    {"state", "data", "doctor", "runs"},
    {"step", "figures"},
    {"evaluation", "wording"},
    {"loop", "verdict", "charts", "published", "settings", "course", "evidence"},
    {"report"},
    {"train", "evaluate", "plan", "prepare", "compare", "aot", "export"},
]
PACKAGE = Path("wrn_jax")


def imports_of(path):
    """Names of the package's modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "wrn_jax":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wrn_jax."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("wrn_jax.")}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    return found


def test_every_module_has_a_rank():
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == set().union(*RANKS)


@pytest.mark.parametrize("rank", range(len(RANKS)))
def test_imports_point_down(rank):
    below = set().union(*RANKS[:rank])
    for module in RANKS[rank]:
        upward = imports_of(PACKAGE / f"{module}.py") - below
        assert not upward, f"{module} imports {upward}"


def test_every_module_has_a_test_file():
    covered_end_to_end = {"errors", "command", "state", "document"}
    for path in PACKAGE.glob("*.py"):
        if path.stem not in covered_end_to_end | {"__init__"}:
            assert Path(f"tests/test_{path.stem}.py").exists(), path


def test_training_imports_neither_tensorflow_nor_torch():
    code = "import sys, wrn_jax.train, wrn_jax.evaluate, wrn_jax.plan; print({'tensorflow', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
