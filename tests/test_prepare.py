"""Preparing CIFAR without TensorFlow: from archives, whole and damaged ones, and over a local web server."""

import contextlib
import dataclasses
import functools
import hashlib
import http.server
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from wrn_jax import data, prepare
from wrn_jax.errors import UserError

# Small numbers of records in place of the 50,000 and 10,000; five files make up cifar10's training set.
SMALL = {"cifar10": {"train": 100, "test": 20}, "cifar100": {"train": 300, "test": 100}}


def binary_files(name, seed=0):
    """{file: bytes} as in the original archive, with random pixels."""
    cifar, rng = data.CIFAR[name], np.random.default_rng(seed)
    contents = {file: names_file(count) for file, count in cifar.label_files.values()}
    for split, files in cifar.files.items():
        count = SMALL[name][split]
        labels = rng.permutation(np.arange(count) % cifar.num_classes)[:, None]
        if name == "cifar100":
            labels = np.concatenate([labels // 5, labels], axis=1)
        records = np.concatenate([labels, rng.integers(0, 256, (count, 3072))], axis=1).astype(np.uint8)
        for file, part in zip(files, np.split(records, len(files)), strict=True):
            contents[file] = part.tobytes()
    return contents


def names_file(count):
    return "".join(f"name{index}\n" for index in range(count)).encode() + b"\n"


def write_archive(path, name, contents):
    """A .tar.gz as the original one; a value may also be a TarInfo, to be added without content."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for file, content in contents.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            member = tarfile.TarInfo(f"{data.CIFAR[name].folder}/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def records_of(name, contents, split):
    """Images and labels by their place in the binary files."""
    cifar = data.CIFAR[name]
    raw = np.frombuffer(b"".join(contents[file] for file in cifar.files[split]), np.uint8)
    raw = raw.reshape(-1, 3072 + len(cifar.label_files))
    return raw[:, -3072:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), raw[:, -3073].astype(np.int32)


@pytest.fixture(autouse=True)
def small_sets(monkeypatch):
    for name, counts in SMALL.items():
        monkeypatch.setitem(data.NUM_EXAMPLES, name, counts)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


def one_line(error):
    """The text of a user's error, which must be one line."""
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 1000
    return text


@contextlib.contextmanager
def ordinary_rights():
    """File permissions bind root only when it acts as somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["cifar100", "cifar10"])
def test_every_record_arrives(name, tmp_path):
    contents = binary_files(name)
    folder = data.prepare(name, tmp_path / "tfds", write_archive(tmp_path / "archive.tar.gz", name, contents))

    assert folder == tmp_path / "tfds" / name / folder.name
    assert re.fullmatch(r"\d+\.\d+\.\d+", folder.name)
    assert sorted(path.name for path in (tmp_path / "tfds").iterdir()) == [name]  # nothing temporary stays
    import tensorflow_datasets as tfds

    for split in data.SPLITS:
        images, labels = records_of(name, contents, split)
        source = tfds.data_source(name, split=split, data_dir=tmp_path / "tfds", download=False)
        assert len(source) == len(images)
        seen = set()
        for record in source:
            index = int(record["id"].decode().removeprefix(f"{split}_"))
            np.testing.assert_array_equal(record["image"], images[index])
            assert record["label"] == labels[index]
            if name == "cifar100":
                assert record["coarse_label"] == labels[index] // 5
            seen.add(index)
        assert len(seen) == len(images)
    assert (folder / "label.labels.txt").read_text().split() == [f"name{i}" for i in range(data.CIFAR[name].num_classes)]


@pytest.fixture(scope="module")
def whole():
    """Contents of a whole cifar100 archive, in small."""
    return binary_files("cifar100")


def change(**changes):
    return lambda contents: contents | changes


def with_label(contents, index, label):
    records = bytearray(contents["train.bin"])
    records[index * 3074 + 1] = label
    return contents | {"train.bin": bytes(records)}


def swap_label(contents):
    label = contents["train.bin"][1]
    return with_label(contents, 0, (label + 1) % 100)


def link_for(file):
    member = tarfile.TarInfo(f"cifar-100-binary/{file}")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
    return member


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            lambda contents: {k: v for k, v in contents.items() if k != "test.bin"},
            "cifar-100-binary/test.bin not found",
        ),
        (lambda contents: contents | {"train.bin": contents["train.bin"][:-1]}, "train.bin is a file of 922199 bytes"),
        (lambda contents: contents | {"train.bin": contents["train.bin"] * 2}, "expected a file of 922200 bytes"),
        (lambda contents: contents | {"train.bin": link_for("train.bin")}, "train.bin is no regular file"),
        (lambda contents: contents | {"fine_label_names.txt": link_for("fine_label_names.txt")}, "is no regular file"),
        (lambda contents: contents | {"fine_label_names.txt": names_file(99)}, "holds 99 class names; expected 100"),
        (lambda contents: contents | {"coarse_label_names.txt": bytes(70000)}, "at most 65536 bytes"),
        (
            lambda contents: contents | {"fine_label_names.txt": b"\xff\xfe" * 100},
            "fine_label_names.txt: cannot be read",
        ),
        (lambda contents: with_label(contents, 0, 100), "found labels from 0 to 100; expected 0 to 99"),
        (swap_label, "found between 2 and 4 records of a class; expected 3 of each"),
        (lambda contents: {}, "not found in it"),
    ],
)
def test_wrong_archive_is_one_line(whole, tmp_path, damage, expected):
    archive = write_archive(tmp_path / "archive.tar.gz", "cifar100", damage(whole))
    with pytest.raises(UserError) as error:
        data.prepare("cifar100", tmp_path / "tfds", archive)
    assert expected in one_line(error)
    assert list((tmp_path / "tfds").iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "cannot be unpacked"),
        (lambda path: path.write_bytes(b"<html>not an archive</html>" * 100), "cannot be unpacked"),
        (lambda path: path.write_bytes(b""), "cannot be unpacked"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    ],
    ids=["truncated", "html", "empty", "absent", "folder"],
)
def test_unreadable_archive_is_one_line(whole, tmp_path, damage, expected):
    archive = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole)
    damage(archive)
    with pytest.raises(UserError) as error:
        data.prepare("cifar100", tmp_path / "tfds", archive)
    assert expected in one_line(error)
    assert str(archive) in one_line(error)
    assert "cifar-100-binary.tar.gz" in one_line(error)


def test_only_expected_names_are_unpacked(whole, tmp_path):
    outside = tarfile.TarInfo("../outside.txt")
    archive = write_archive(tmp_path / "archive.tar.gz", "cifar100", {"a": outside} | whole)
    (tmp_path / "here").mkdir()
    data._extract("cifar100", archive, tmp_path / "here")
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == sorted(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.tar.gz", "here"]


def test_interrupted_preparation_leaves_nothing(whole, tmp_path, monkeypatch):
    archive, examples = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole), data._examples

    def interrupted(name, split, paths):
        for index, example in enumerate(examples(name, split, paths)):
            if split == "test" and index == 50:
                raise KeyboardInterrupt
            yield example

    with monkeypatch.context() as patch:
        patch.setattr(data, "_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            data.prepare("cifar100", tmp_path / "tfds", archive)
        assert list((tmp_path / "tfds").iterdir()) == []
        assert prepare.main(["--archive", str(archive), "--data-dir", str(tmp_path / "tfds")]) == 130
    assert data.prepare("cifar100", tmp_path / "tfds", archive).is_dir()


def test_what_tfds_wrote_is_read_before_it_counts(whole, tmp_path, monkeypatch):
    archive, build = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole), data._build

    def build_badly(name, extracted, data_dir):
        folder = build(name, extracted, data_dir)
        shard = folder / "cifar100-test.array_record-00000-of-00001"
        shard.write_bytes(shard.read_bytes()[:-70_000])
        return folder

    monkeypatch.setattr(data, "_build", build_badly)
    with pytest.raises(UserError, match=r"cifar100-test\.array_record-00000-of-00001: cannot be read"):
        data.prepare("cifar100", tmp_path / "tfds", archive)
    assert list((tmp_path / "tfds").iterdir()) == []


def test_existing_folder_is_checked_and_kept(whole, tmp_path, capsys):
    archive = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole)
    folder = data.prepare("cifar100", tmp_path, archive)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert data.prepare("cifar100", tmp_path) == folder
    assert f"{folder} was prepared already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    shard = folder / "cifar100-train.array_record-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-70_000])
    with pytest.raises(UserError, match=re.escape(str(shard))):
        data.prepare("cifar100", tmp_path, archive)


def test_unfinished_folder_in_the_way_is_named(whole, tmp_path):
    folder = tmp_path / "cifar100" / "3.0.2"
    folder.mkdir(parents=True)
    (folder / "cifar100-train.array_record-00000-of-00001").write_bytes(b"half")
    with pytest.raises(UserError) as error:
        data.prepare("cifar100", tmp_path, write_archive(tmp_path / "archive.tar.gz", "cifar100", whole))
    assert one_line(error).startswith(f"{folder}: something unfinished is in the way")


def test_another_process_may_finish_first(whole, tmp_path, monkeypatch):
    archive, build = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole), data._build

    def build_late(name, extracted, data_dir):
        monkeypatch.setattr(data, "_build", build)
        data.prepare(name, tmp_path / "tfds", archive)
        return build(name, extracted, data_dir)

    monkeypatch.setattr(data, "_build", build_late)
    assert data.prepare("cifar100", tmp_path / "tfds", archive).is_dir()
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["cifar100"]


@pytest.mark.parametrize("inside", ["", "tfds"])
def test_folder_that_cannot_be_written_is_one_line(whole, tmp_path, inside):
    import tensorflow_datasets as tfds

    tfds.builder_cls("cifar100")  # imports what a user of ordinary rights might not be allowed to read here
    archive = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole)
    with tempfile.TemporaryDirectory() as locked:
        os.chmod(locked, 0o555)
        with ordinary_rights(), pytest.raises(UserError) as error:
            data.prepare("cifar100", Path(locked, inside), archive)
    assert one_line(error).startswith(f"{locked}/")
    assert "cannot prepare cifar100 there (Permission denied)" in one_line(error)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; '/slow' never answers, '/short' promises more than it sends."""

    def do_GET(self):
        if self.path == "/slow":
            self.server.stop.wait(30)
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 400)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Address of a local web server for tmp_path."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=tmp_path)) as server:
        server.stop = threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.stop.set()
        server.shutdown()
        thread.join()


def fetch_from(monkeypatch, url, **on_record):
    monkeypatch.setitem(data.CIFAR, "cifar100", dataclasses.replace(data.CIFAR["cifar100"], url=url, **on_record))


def test_download_is_prepared(whole, tmp_path, address, monkeypatch):
    archive = write_archive(tmp_path / "cifar-100-binary.tar.gz", "cifar100", whole)
    content = archive.read_bytes()
    on_record = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    fetch_from(monkeypatch, f"{address}/{archive.name}", **on_record)
    folder = data.prepare("cifar100", tmp_path / "tfds", download=True)
    assert (folder / "dataset_info.json").is_file()
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["cifar100"]


def test_download_must_be_the_file_on_record(whole, tmp_path, address, monkeypatch):
    archive = write_archive(tmp_path / "cifar-100-binary.tar.gz", "cifar100", whole)
    fetch_from(monkeypatch, f"{address}/{archive.name}", size=archive.stat().st_size)
    with pytest.raises(UserError) as error:
        data.prepare("cifar100", tmp_path / "tfds", download=True)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in one_line(error)
    assert data.CIFAR["cifar100"].sha256 in one_line(error)
    assert list((tmp_path / "tfds").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/absent", "404"), ("/slow", "timed out"), ("/short", "received 400 bytes")],
)
def test_failed_download_is_one_line(tmp_path, address, monkeypatch, path, expected):
    fetch_from(monkeypatch, address + path)
    monkeypatch.setattr(data, "CONNECT_TIMEOUT", 0.3)
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        data.prepare("cifar100", tmp_path / "tfds", download=True)
    assert expected in one_line(error)
    assert address + path in one_line(error)
    assert time.monotonic() - started < 5
    assert getattr(error.value.__cause__, "closed", True)  # an HTTP error holds the connection until it is closed
    assert list((tmp_path / "tfds").iterdir()) == []


def test_refused_connection_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        port = server.server_port
    fetch_from(monkeypatch, f"http://127.0.0.1:{port}/cifar-100-binary.tar.gz")
    with pytest.raises(UserError, match=f"127.0.0.1:{port}/cifar-100-binary.tar.gz: the download failed .*refused"):
        data.prepare("cifar100", tmp_path / "tfds", download=True)


@pytest.mark.parametrize("name", ["cifar100", "cifar10"])
def test_archives_on_record_are_those_of_tfds(name):
    pytest.importorskip("importlib_resources", reason="TFDS reads its records with importlib_resources")
    import tensorflow_datasets as tfds

    cifar = data.CIFAR[name]
    recorded = tfds.builder_cls(name).url_infos[cifar.url]
    assert (recorded.size, recorded.checksum) == (cifar.size, cifar.sha256)


def test_command_says_where_it_wrote(whole, tmp_path, capsys):
    archive = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole)
    target = tmp_path / "with space"
    assert prepare.main(["--archive", str(archive), "--data-dir", str(target)]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [f"cifar100 is in {target}/cifar100/3.0.2", f"export TFDS_DATA_DIR='{target}'"]
    assert captured.err.splitlines()[0] == "preparing cifar100 train"


def test_command_writes_to_the_environment_variable(whole, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    archive = write_archive(tmp_path / "archive.tar.gz", "cifar10", binary_files("cifar10"))
    assert prepare.main(["--name", "cifar10", "--archive", str(archive)]) == 0
    assert f"export TFDS_DATA_DIR={tmp_path / 'tfds'}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--archive", "{tmp}/absent.tar.gz"], "absent.tar.gz: cannot be unpacked (No such file or directory)"),
        ([], "expected --archive cifar-100-binary.tar.gz or --download"),
        (
            ["--name", "cifar10", "--data-dir", "gs://bucket/data", "--download"],
            "gs://bucket/data: a remote data folder",
        ),
    ],
)
def test_command_tells_an_error_in_one_line(tmp_path, capsys, monkeypatch, arguments, expected):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    assert prepare.main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert expected in captured.err


def test_command_in_a_process_of_its_own(tmp_path):
    """The real command, with the counts it insists on: a small archive is refused with exit code 2."""
    archive = write_archive(tmp_path / "archive.tar.gz", "cifar100", binary_files("cifar100"))
    command = [sys.executable, "-W", "error", "-m", "wrn_jax.prepare"]
    root = Path(__file__).parents[1]
    run = functools.partial(subprocess.run, capture_output=True, text=True, cwd=root, timeout=120, check=False)
    refused = run([*command, "--archive", str(archive), "--data-dir", str(tmp_path / "tfds")])
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines() == [
        f"error: {archive}: cifar-100-binary/train.bin is a file of 922200 bytes; expected a file of 153700000 bytes, "
        "as in cifar-100-binary.tar.gz"
    ]
    usage = run([*command, "--help"])
    assert usage.returncode == 0
    assert "--archive FILE" in usage.stdout
    assert "TFDS_DATA_DIR" in usage.stdout
