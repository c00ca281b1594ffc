"""The documentation: its site is built without a warning, and what it names is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for text in ("load_model", "images/rooms.svg", "exit-codes"):
        assert any(text in page.read_text() for page in tmp_path.rglob("*.html")), text
