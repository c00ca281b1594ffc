"""CIFAR in other forms than TFDS's: the same images in the same order as from the folder that is prepared of them."""

import dataclasses
import io
import json
import os
import pickle
import tarfile
import types
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from tests import fake_cifar
from tests.fake_cifar import assert_same, binary_files, one_line, records_of, write_archive
from wrn_jax import config
from wrn_jax.config.datasets import DATASETS
from wrn_jax.data import cifar, forms, loading, preparation
from wrn_jax.runtime.errors import UserError


@pytest.fixture(autouse=True)
def small_sets(monkeypatch):
    fake_cifar.use_small_counts(monkeypatch)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Contents of small archives of both sets, and a TFDS folder prepared from them."""
    return fake_cifar.prepare_both(tmp_path_factory.mktemp("prepared"))


def write_binary(folder, name, contents):
    inside = folder / forms.ARCHIVES[name].folder
    inside.mkdir()
    for file, content in contents.items():
        (inside / file).write_bytes(content)


def write_pickles(folder, name, contents):
    """The files of the archive for Python, cut as the original ones are."""
    known = forms._PICKLES[name]
    inside = folder / known.folder
    inside.mkdir()
    for split, files in known.files.items():
        images, labels = records_of(name, contents, split)
        for file, pixels, own in zip(files, np.split(images, len(files)), np.split(labels, len(files)), strict=True):
            batch = {b"data": pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1).copy()}
            batch |= {
                key.encode(): [int(label) // (5 if kind == "coarse_label" else 1) for label in own]
                for kind, (key, _) in known.labels.items()
            }
            (inside / file).write_bytes(pickle.dumps(batch, protocol=2))
    counts = {"label": DATASETS[name].num_classes, "coarse_label": 20}
    meta = {key: [f"name{i}" for i in range(counts[kind])] for kind, (_, key) in known.labels.items()}
    (inside / known.names).write_bytes(pickle.dumps(meta, protocol=2))


def pack_pickles(folder, name, contents):
    write_pickles(folder, name, contents)
    inside = folder / forms._PICKLES[name].folder
    with tarfile.open(folder / f"{inside.name}.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(inside, inside.name)
    for file in inside.iterdir():
        file.unlink()


def write_keras(folder, name, contents):
    (folder / f"{name}-target").mkdir()
    write_pickles(folder / f"{name}-target", name, contents)


def write_parquet(folder, name, contents):
    info = DATASETS[name]
    names = {"label": info.label_names, "coarse_label": tuple(info.superclasses)}
    features = {column: {"names": names[kind]} for kind, column in forms._PARQUET[name].items()}
    for split in cifar.SPLITS:
        cells = []
        images, labels = records_of(name, contents, split)
        for pixels in images:
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "PNG")
            cells.append({"bytes": png.getvalue(), "path": None})
        columns = {column: labels // (5 if kind == "coarse_label" else 1) for kind, column in forms._PARQUET[name].items()}
        table = pyarrow.table({"img": cells} | columns)
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def write_npz(folder, name, contents):
    arrays = {}
    for split in cifar.SPLITS:
        arrays[f"x_{split}"], arrays[f"y_{split}"] = records_of(name, contents, split)
    np.savez(folder / f"{name}.npz", **arrays)


WRITERS = (write_binary, write_pickles, pack_pickles, write_keras, write_parquet, write_npz)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["cifar100", "cifar10"])
def test_every_form_gives_the_same_arrays(prepared, tmp_path, name, write):
    contents, directory = prepared
    write(tmp_path, name, contents[name])
    asked = config.Data(name=name, directory=str(tmp_path), download=False, validation_size=0)
    dataset = loading.load(asked)
    splits, names = cifar.read_cached(name, cifar.find_version(directory, name), tmp_path / "arrays")
    assert_same(dataset, types.SimpleNamespace(**splits))
    if write in (write_npz, write_parquet):  # without names, or with the true ones
        names = ("airplane", "truck") if name == "cifar10" else ("apple", "worm")
    assert (dataset.class_names[0], dataset.class_names[-1]) == (names[0], names[-1])


@pytest.mark.parametrize("write", [write_npz, pack_pickles])
def test_the_directory_may_be_the_file_itself(prepared, tmp_path, write):
    write(tmp_path, "cifar100", prepared[0]["cifar100"])
    asked = config.Data(name="cifar100", directory=str(tmp_path), download=False, validation_size=0)
    (file,) = (path for path in tmp_path.iterdir() if path.is_file())
    assert_same(loading.load(dataclasses.replace(asked, directory=str(file))), loading.load(asked))


def test_another_form_is_prepared_as_the_binary_archive_is(prepared, tmp_path):
    contents, directory = prepared
    write_pickles(tmp_path, "cifar100", contents["cifar100"])
    folder = preparation.prepare("cifar100", tmp_path / "tfds", tmp_path / "cifar-100-python")
    for split in cifar.SPLITS:
        record = f"cifar100/{folder.name}/cifar100-{split}.array_record-00000-of-00001"
        assert (tmp_path / "tfds" / record).read_bytes() == (directory / record).read_bytes()


def test_the_other_set_is_named(prepared, tmp_path):
    write_pickles(tmp_path, "cifar10", prepared[0]["cifar10"])
    with pytest.raises(UserError, match="cifar-10-batches-py: holds cifar10; expected cifar100"):
        forms.read("cifar100", tmp_path / "cifar-10-batches-py")


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("made",)


@pytest.mark.parametrize("payload", [Hostile(), {b"data": Hostile()}, np.array([Hostile()])])
def test_no_pickle_runs_code(prepared, tmp_path, monkeypatch, payload):
    monkeypatch.chdir(tmp_path)
    write_pickles(tmp_path, "cifar100", prepared[0]["cifar100"])
    (tmp_path / "cifar-100-python" / "test").write_bytes(pickle.dumps(payload))
    with pytest.raises(UserError, match=r"calls for (posix|nt)\.mkdir") as error:
        forms.read("cifar100", tmp_path)
    assert one_line(error)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1]), pickle.dumps({b"data": 1}), pickle.dumps({})])
def test_a_damaged_file_is_one_line(prepared, tmp_path, content):
    write_pickles(tmp_path, "cifar100", prepared[0]["cifar100"])
    (tmp_path / "cifar-100-python" / "test").write_bytes(content)
    with pytest.raises(UserError, match="cifar-100-python: cannot be read") as error:
        forms.read("cifar100", tmp_path)
    assert one_line(error)


def test_what_is_no_form_of_cifar_is_passed_over(prepared, tmp_path, monkeypatch):
    features = {"label": {"names": ["negative", "positive"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    cells = [{"bytes": b"", "path": None}]
    for folder, columns, described in (("imdb", {"text": ["a"]}, {}), ("other", {"image": cells}, metadata)):
        (tmp_path / folder).mkdir()
        for split in cifar.SPLITS:
            table = pyarrow.table(columns | {"label": [1]}).replace_schema_metadata(described)
            parquet.write_table(table, tmp_path / folder / f"{split}.parquet")
    closed = tmp_path / "lost+found"
    closed.mkdir()
    access, iterdir = os.access, Path.iterdir
    monkeypatch.setattr(forms.os, "access", lambda path, mode: path != closed and access(path, mode))
    monkeypatch.setattr(Path, "iterdir", lambda path: iterdir(path) if path != closed else pytest.fail("may not be listed"))
    monkeypatch.setitem(forms.ARCHIVES, "another", forms.ARCHIVES["cifar10"])
    for name in ("cifar100", "cifar10", "another"):
        assert forms.read(name, tmp_path) is None
        assert forms.read(name, tmp_path / "imdb") is None
    (tmp_path / "there").mkdir()
    write_pickles(tmp_path / "there", "cifar100", prepared[0]["cifar100"])
    assert forms.read("cifar100", tmp_path) is not None


@pytest.mark.parametrize("file", ["train-00000.arrow", "test.mat", "cifar.zip", "train/apple/1.png"])
def test_a_form_that_is_not_read_is_called_what_it_is(tmp_path, file):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(UserError, match=r"holds (Arrow|files for Matlab|a zip|image files; --config.data.name=own)"):
        loading.load(config.Data(directory=str(tmp_path), download=False))


def test_an_original_archive_in_the_folder_is_prepared(prepared, tmp_path):
    write_archive(tmp_path / "cifar-100-binary.tar.gz", "cifar100", binary_files("cifar100"))
    asked = config.Data(directory=str(tmp_path), download=False, validation_size=0, cache=str(tmp_path / "arrays"))
    assert len(loading.load(asked).test.images) == 100
