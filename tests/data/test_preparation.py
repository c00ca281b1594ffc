"""Preparing CIFAR without TensorFlow: from archives, whole and damaged ones, and over a local web server."""

import dataclasses
import functools
import hashlib
import http.server
import json
import os
import re
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests import fake_cifar
from tests.fake_cifar import binary_files, names_file, one_line, ordinary_rights, records_of, write_archive
from wrn_jax.config.datasets import DATASETS
from wrn_jax.data import cifar, preparation
from wrn_jax.runtime.errors import UserError


@pytest.fixture(autouse=True)
def small_sets(monkeypatch):
    fake_cifar.use_small_counts(monkeypatch)


@pytest.mark.parametrize("name", ["cifar100", "cifar10"])
def test_every_record_arrives(name, tmp_path):
    contents = binary_files(name)
    folder = preparation.prepare(name, tmp_path / "tfds", write_archive(tmp_path / "archive.tar.gz", name, contents))

    assert folder == tmp_path / "tfds" / name / folder.name
    assert re.fullmatch(r"\d+\.\d+\.\d+", folder.name)
    assert sorted(path.name for path in (tmp_path / "tfds").iterdir()) == [name]  # nothing temporary stays
    import tensorflow_datasets as tfds

    for split in cifar.SPLITS:
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
    description = json.loads((folder / "dataset_info.json").read_text())
    assert description["moduleName"] == tfds.builder_cls(name).__module__
    num_classes = DATASETS[name].num_classes
    assert (folder / "label.labels.txt").read_text().split() == [f"name{i}" for i in range(num_classes)]


@pytest.fixture(scope="module")
def whole():
    """Contents of a whole cifar100 archive, in small."""
    return binary_files("cifar100")


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
    file = write_archive(tmp_path / "archive.tar.gz", "cifar100", damage(whole))
    with pytest.raises(UserError) as error:
        preparation.prepare("cifar100", tmp_path / "tfds", file)
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
    file = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole)
    damage(file)
    with pytest.raises(UserError) as error:
        preparation.prepare("cifar100", tmp_path / "tfds", file)
    assert expected in one_line(error)
    assert str(file) in one_line(error)
    assert "cifar-100-binary.tar.gz" in one_line(error)


def test_only_expected_names_are_unpacked(whole, tmp_path):
    outside = tarfile.TarInfo("../outside.txt")
    file = write_archive(tmp_path / "archive.tar.gz", "cifar100", {"a": outside} | whole)
    (tmp_path / "here").mkdir()
    preparation._extract("cifar100", file, tmp_path / "here")
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == sorted(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.tar.gz", "here"]


def test_interrupted_preparation_leaves_nothing(whole, tmp_path, monkeypatch):
    file, examples = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole), preparation._examples

    def interrupted(name, split, paths):
        for index, example in enumerate(examples(name, split, paths)):
            if split == "test" and index == 50:
                raise KeyboardInterrupt
            yield example

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_examples", interrupted)
        with pytest.raises(KeyboardInterrupt):
            preparation.prepare("cifar100", tmp_path / "tfds", file)
        assert list((tmp_path / "tfds").iterdir()) == []
    assert preparation.prepare("cifar100", tmp_path / "tfds", file).is_dir()


def test_what_tfds_wrote_is_read_before_it_counts(whole, tmp_path, monkeypatch):
    file, build = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole), preparation._build

    def build_badly(name, extracted, data_dir):
        folder = build(name, extracted, data_dir)
        shard = folder / "cifar100-test.array_record-00000-of-00001"
        shard.write_bytes(shard.read_bytes()[:-70_000])
        return folder

    monkeypatch.setattr(preparation, "_build", build_badly)
    with pytest.raises(UserError, match=r"cifar100-test\.array_record-00000-of-00001: cannot be read"):
        preparation.prepare("cifar100", tmp_path / "tfds", file)
    assert list((tmp_path / "tfds").iterdir()) == []


def test_existing_folder_is_checked_and_kept(whole, tmp_path, capsys):
    file = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole)
    folder = preparation.prepare("cifar100", tmp_path, file)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert preparation.prepare("cifar100", tmp_path) == folder
    assert f"{folder} was prepared already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before

    shard = folder / "cifar100-train.array_record-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-70_000])
    with pytest.raises(UserError, match=re.escape(str(shard))):
        preparation.prepare("cifar100", tmp_path, file)


def test_unfinished_folder_in_the_way_is_named(whole, tmp_path):
    folder = tmp_path / "cifar100" / "3.0.2"
    folder.mkdir(parents=True)
    (folder / "cifar100-train.array_record-00000-of-00001").write_bytes(b"half")
    with pytest.raises(UserError) as error:
        preparation.prepare("cifar100", tmp_path, write_archive(tmp_path / "archive.tar.gz", "cifar100", whole))
    assert one_line(error).startswith(f"{folder}: something unfinished is in the way")


def test_another_process_may_finish_first(whole, tmp_path, monkeypatch):
    file, build = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole), preparation._build

    def build_late(name, extracted, data_dir):
        monkeypatch.setattr(preparation, "_build", build)
        preparation.prepare(name, tmp_path / "tfds", file)
        return build(name, extracted, data_dir)

    monkeypatch.setattr(preparation, "_build", build_late)
    assert preparation.prepare("cifar100", tmp_path / "tfds", file).is_dir()
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["cifar100"]


@pytest.mark.parametrize("inside", ["", "tfds"])
def test_folder_that_cannot_be_written_is_one_line(whole, tmp_path, inside):
    import tensorflow_datasets as tfds

    tfds.builder_cls("cifar100")  # imports what a user of ordinary rights might not be allowed to read here
    file = write_archive(tmp_path / "archive.tar.gz", "cifar100", whole)
    with tempfile.TemporaryDirectory() as locked:
        os.chmod(locked, 0o555)
        with ordinary_rights(), pytest.raises(UserError) as error:
            preparation.prepare("cifar100", Path(locked, inside), file)
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
    monkeypatch.setitem(
        preparation.ARCHIVES, "cifar100", dataclasses.replace(preparation.ARCHIVES["cifar100"], url=url, **on_record)
    )


def test_download_is_prepared(whole, tmp_path, address, monkeypatch):
    file = write_archive(tmp_path / "cifar-100-binary.tar.gz", "cifar100", whole)
    content = file.read_bytes()
    on_record = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    fetch_from(monkeypatch, f"{address}/{file.name}", **on_record)
    folder = preparation.prepare("cifar100", tmp_path / "tfds", download=True)
    assert (folder / "dataset_info.json").is_file()
    assert [path.name for path in (tmp_path / "tfds").iterdir()] == ["cifar100"]


def test_download_must_be_the_file_on_record(whole, tmp_path, address, monkeypatch):
    file = write_archive(tmp_path / "cifar-100-binary.tar.gz", "cifar100", whole)
    fetch_from(monkeypatch, f"{address}/{file.name}", size=file.stat().st_size)
    with pytest.raises(UserError) as error:
        preparation.prepare("cifar100", tmp_path / "tfds", download=True)
    assert hashlib.sha256(file.read_bytes()).hexdigest() in one_line(error)
    assert preparation.ARCHIVES["cifar100"].sha256 in one_line(error)
    assert list((tmp_path / "tfds").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/absent", "404"), ("/slow", "timed out"), ("/short", "received 400 bytes")],
)
def test_failed_download_is_one_line(tmp_path, address, monkeypatch, path, expected):
    fetch_from(monkeypatch, address + path)
    monkeypatch.setattr(preparation, "CONNECT_TIMEOUT", 0.3)
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        preparation.prepare("cifar100", tmp_path / "tfds", download=True)
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
        preparation.prepare("cifar100", tmp_path / "tfds", download=True)


@pytest.mark.parametrize("name", ["cifar100", "cifar10"])
def test_archives_on_record_are_those_of_tfds(name):
    pytest.importorskip("importlib_resources", reason="TFDS reads its records with importlib_resources")
    import tensorflow_datasets as tfds

    archive = preparation.ARCHIVES[name]
    recorded = tfds.builder_cls(name).url_infos[archive.url]
    assert (recorded.size, recorded.checksum) == (archive.size, archive.sha256)
