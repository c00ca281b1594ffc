"""The house: which room may import which, and that importing the package does not pull in what nobody asked for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from wrn_jax.config.datasets import DATASETS

PACKAGE = Path("wrn_jax")
BELOW = {"runtime": set()}
"""For each room those that it may import."""
BELOW["config"] = {"runtime"}
BELOW["models"] = BELOW["data"] = {"config", *BELOW["config"]}
BELOW["evaluation"] = {"models", "data", *BELOW["data"]}
BELOW["training"] = {"evaluation", *BELOW["evaluation"]}
BELOW["planning"] = BELOW["report"] = {"training", *BELOW["training"]}
BELOW["studies"] = {"planning", "report", *BELOW["report"]}


def modules_imported_by(path):
    """Dotted names, such as `wrn_jax.config.schedules`, of what a file imports of the package, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            if node.module == "wrn_jax":
                yield from (f"wrn_jax.{alias.name}" for alias in node.names)
            elif (node.module or "").startswith("wrn_jax."):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("wrn_jax."))


def test_every_folder_is_a_room():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders == set(BELOW)


@pytest.mark.parametrize("room", BELOW)
def test_imports_point_down(room):
    for path in (PACKAGE / room).rglob("*.py"):
        rooms = {name.split(".")[1] for name in modules_imported_by(path)} - {room}
        assert rooms <= BELOW[room], f"{path} imports {rooms - BELOW[room]}"


def test_commands_do_not_import_each_other():
    commands = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "command", "api"}
    for name in commands:
        imported = {found.split(".")[1] for found in modules_imported_by(PACKAGE / f"{name}.py")}
        assert not imported & commands, name


def test_only_the_table_the_defaults_and_the_loaders_name_a_data_set():
    allowed = {"config/datasets.py", "config/schema.py", "prepare.py", "api.py", "data"}
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE)
        if not {place.as_posix(), place.parts[0]} & allowed:
            texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
            assert not texts & (set(DATASETS) - {"own"}), path  # "own" is a common word


def test_importing_the_package_is_quick():
    code = (
        "import sys, wrn_jax; print({'jax', 'numpy', 'pydantic'} & set(sys.modules), set(wrn_jax.__all__) <= set(dir(wrn_jax)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "True"]


def test_a_refusal_does_not_wait_for_what_only_the_work_needs():
    code = """
import importlib, sys
for name in ("train", "evaluate", "plan", "check", "aot", "study", "compare", "export", "publish", "prepare", "predict"):
    for arguments in (["--help"], ["--config", "no-such-recipe", "--out", "no", "--workdir", "no"]):
        try:
            importlib.import_module(f"wrn_jax.{name}").main(arguments)
        except (SystemExit, Exception):
            pass
print({"flax", "optax", "orbax", "matplotlib", "plotly"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("room", BELOW)
def test_every_room_says_what_it_is_for(room):
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
    assert {"In:", "Out:", "Imports"} <= set(text.split()), text


def test_training_imports_neither_tensorflow_nor_torch():
    code = "import sys, wrn_jax.train, wrn_jax.evaluate, wrn_jax.plan; print({'tensorflow', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
