"""The documentation: its site is built without a warning, what it names is there, and the commands it names run."""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from wrn_jax.config import load_file
from wrn_jax.config.agreement import changed_keys
from wrn_jax.training.origins import goes_on

PAGES = [Path("README.md"), *(path for path in sorted(Path("docs").rglob("*.md")) if path.name != "report.md")]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_that_a_page_names_are_there(page):
    text = page.read_text()
    links = [link.split("#")[0] for link in re.findall(r'(?:\]\(|src=")([^)":]*)[)"]', text)]
    assert [link for link in links if not (page.parent / link).exists()] == []
    # Modules are named from the package, tests from their folder, the rest from the repository.
    folders = (Path(), Path("wrn_jax"), Path("tests"))
    names = re.findall(r"`([a-z_/.]+/[a-z_]+\.(?:py|sh|yml)|test_[a-z_]+\.py)`", text)
    assert [name for name in names if not any((folder / name).exists() for folder in folders)] == []


def texts():
    """(file, text) of every page, and of every string of the package: its docstrings and messages."""
    yield from ((page, page.read_text()) for page in PAGES)
    for path in Path("wrn_jax").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        parts_of_others = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part)}}}" for part in node.values]
                yield path, "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts_of_others:
                yield path, node.value


def commands():
    """(command, arguments) wherever one with arguments is named; what a reader is to fill in is filled in."""
    filled = {"configs/RECIPE.py": "session04", "RECIPE.py": "session04", "--config FILE": "--config session04"}
    filled |= {"TARGET": "gpu:h100", "SEED": "1"}
    for _, text in texts():
        for command, rest in re.findall(r"-m wrn_jax\.([a-z]+) +([^`\n]+)", text.replace("\\\n", " ")):
            for placeholder, value in filled.items():
                rest = rest.replace(placeholder, value)
            rest = re.sub(r"\{[^{}]*(\{[^{}]*\}[^{}]*)*\}", lambda match: "cifar100" if "name" in match[0] else "x", rest)
            yield command, rest.replace("configs/x_as_executed", "configs/session04_as_executed")


class Begins(Exception):
    """A command has understood its arguments and begins to work."""


@pytest.mark.parametrize(("command", "arguments"), sorted(set(commands())))
def test_commands_that_a_page_or_message_names_begin_to_work(command, arguments, monkeypatch, tmp_path):
    def begin(*_, **__):
        raise Begins

    work = ("training.loop.train", "train.saved_config", "evaluate.saved_config", "export.restore", "api.load_model",
            "publish.runs.load", "runtime.hub._package", "compare.runs.load", "planning.compile.analyse",
            "planning.fitness.Machine", "training.workdir.claimed", "planning.description.make_plan",
            "data.preparation._download", "data.preparation._extract")  # fmt: skip
    for name in work:
        monkeypatch.setattr(f"wrn_jax.{name}", begin)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    words = [str(tmp_path) if word == "DIR" else word for word in shlex.split(arguments, comments=True)]
    with pytest.raises((Begins, SystemExit)) as stopped:
        importlib.import_module(f"wrn_jax.{command}").main(words)
    assert "--help" in words or stopped.type is Begins


def test_recipes_that_a_page_branches_to_can_go_on_from_the_run():
    found = [re.search(r"--branch-from runs/(\w+) .*--config (\S+)", arguments) for _, arguments in commands()]
    pairs = {match.groups() for match in found if match}
    assert pairs
    for run, recipe in pairs:
        assert not [key for key in changed_keys(load_file(run), load_file(recipe)) if goes_on(key)], recipe


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for text in ("load_model", "images/rooms.svg", "exit-codes"):
        assert any(text in page.read_text() for page in tmp_path.rglob("*.html")), text
