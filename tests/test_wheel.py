"""The package as others get it: a wheel, installed elsewhere and run from another folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PACKAGE = Path("wrn_jax").resolve()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the package installed from its wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves files beside the sources
    source.mkdir()
    for name in ("wrn_jax", "configs", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(PACKAGE.parent / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    quietly = {"check": True, "capture_output": True, "text": True}
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source], **quietly)
    (wheel,) = folder.glob("wrn_jax-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-compile", "--target", folder / "site", wheel], **quietly)
    return folder / "site"


def run(site, folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONPATH": str(site)}
    return subprocess.run([sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def files_below(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_holds_every_file_and_the_recipes(site):
    recipes = {Path("recipes") / name for name in files_below(PACKAGE.parent / "configs")}
    assert files_below(site / "wrn_jax") == files_below(PACKAGE) | recipes


def test_finds_recipes_by_name_from_another_folder(site, tmp_path):
    for name in ("session04", "session04_as_executed", "quickstart"):  # the latter two are built on the first
        done = run(site, tmp_path, "wrn_jax.plan", name)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{name}: ")
    done = run(site, tmp_path, "wrn_jax.plan", "--config", "session4")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "plan: session4: no such configuration file; recipes that are known by name: "
        "base, falling, flat, quickstart, rising, sam, session02, session02_as_executed, session04, session04_as_executed, "
        "small100, small30, trivial, trivial_late_sam"
    ]
