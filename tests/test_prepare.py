"""The command that prepares CIFAR: what it says, where it writes, and its exit codes."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fake_cifar
from tests.fake_cifar import binary_files, write_archive
from wrn_jax import command, prepare
from wrn_jax.data import preparation


@pytest.fixture(autouse=True)
def small_sets(monkeypatch):
    fake_cifar.use_small_counts(monkeypatch)


@pytest.fixture(scope="module")
def whole():
    """Contents of a whole cifar100 archive, in small."""
    return binary_files("cifar100")


def run(*arguments):
    """The exit code of the command."""
    return command.run(lambda: prepare.main(arguments), "prepare")


def test_command_says_where_it_wrote(whole, tmp_path, capsys):
    file = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole)
    target = tmp_path / "with space"
    assert run("--archive", str(file), "--data-dir", str(target)) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [f"cifar100 is in {target}/cifar100/3.0.2", f"export TFDS_DATA_DIR='{target}'"]
    assert captured.err.splitlines()[0] == "preparing cifar100 train"


def test_command_writes_to_the_environment_variable(whole, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    file = write_archive(tmp_path / "archive.tar.gz", "cifar10", binary_files("cifar10"))
    assert run("--name", "cifar10", "--archive", str(file)) == 0
    assert f"export TFDS_DATA_DIR={tmp_path / 'tfds'}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--archive", "{tmp}/absent.tar.gz"], "absent.tar.gz: cannot be unpacked (No such file or directory)"),
        (["--nmae", "cifar10"], "unrecognized arguments: --nmae cifar10"),
        ([], "expected --archive cifar-100-binary.tar.gz or --download"),
        (
            ["--name", "cifar10", "--data-dir", "gs://bucket/data", "--download"],
            "gs://bucket/data: is a remote path",
        ),
    ],
)
def test_command_tells_an_error_in_one_line(tmp_path, capsys, monkeypatch, arguments, expected):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    assert run(*[argument.format(tmp=tmp_path) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("prepare: ")
    assert captured.err.count("\n") == 1
    assert expected in captured.err


def test_interrupted_command_says_so(whole, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    file = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole)
    monkeypatch.setattr(preparation, "_examples", interrupted)
    assert run("--archive", str(file), "--data-dir", str(tmp_path / "tfds")) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "prepare: interrupted"
    assert list((tmp_path / "tfds").iterdir()) == []


def test_command_in_a_process_of_its_own(tmp_path):
    """The real command, with the counts it insists on: a small archive is refused with exit code 2."""
    file = write_archive(tmp_path / "archive.tar.gz", "cifar100", binary_files("cifar100"))
    program = [sys.executable, "-W", "error", "-m", "wrn_jax.prepare"]
    root = Path(__file__).parents[1]
    process = functools.partial(subprocess.run, capture_output=True, text=True, cwd=root, timeout=120, check=False)
    refused = process([*program, "--archive", str(file), "--data-dir", str(tmp_path / "tfds")])
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines() == [
        f"prepare: {file}: cifar-100-binary/train.bin is a file of 922200 bytes; expected a file of 153700000 bytes, "
        "as in cifar-100-binary.tar.gz"
    ]
    usage = process([*program, "--help"])
    assert usage.returncode == 0
    assert "--archive FILE" in usage.stdout
    assert "TFDS_DATA_DIR" in usage.stdout
