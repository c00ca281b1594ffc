"""Small CIFAR archives and folders with random pixels, and what the tests of reading and preparing share."""

import contextlib
import dataclasses
import io
import os
import tarfile

import numpy as np
import pytest

from wrn_jax.config.datasets import DATASETS
from wrn_jax.data.preparation import ARCHIVES, prepare

# Small numbers of records in place of the 50,000 and 10,000; five files make up cifar10's training set.
SMALL = {"cifar10": {"train": 100, "test": 20}, "cifar100": {"train": 300, "test": 100}}


def binary_files(name, seed=0):
    """{file: bytes} as in the original archive, with random pixels."""
    archive, rng = ARCHIVES[name], np.random.default_rng(seed)
    contents = {file: names_file(count) for file, count in archive.label_files.values()}
    for split, files in archive.files.items():
        count = SMALL[name][split]
        labels = rng.permutation(np.arange(count) % DATASETS[name].num_classes)[:, None]
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
            member = tarfile.TarInfo(f"{ARCHIVES[name].folder}/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def records_of(name, contents, split):
    """Images and labels by their place in the binary files."""
    archive = ARCHIVES[name]
    raw = np.frombuffer(b"".join(contents[file] for file in archive.files[split]), np.uint8)
    raw = raw.reshape(-1, 3072 + len(archive.label_files))
    return raw[:, -3072:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), raw[:, -3073].astype(np.int32)


def use_small_counts(monkeypatch):
    """Makes the package expect `SMALL` archives and folders, and look nowhere by itself."""
    for name, counts in SMALL.items():
        small = dataclasses.replace(DATASETS[name], num_train=counts["train"], num_test=counts["test"])
        monkeypatch.setitem(DATASETS, name, small)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)


def prepare_both(folder):
    """Contents of small archives of both sets, and a TFDS folder prepared from them below `folder`."""
    contents = {name: binary_files(name) for name in SMALL}
    with pytest.MonkeyPatch.context() as patch:
        use_small_counts(patch)
        for name in SMALL:
            prepare(name, folder / "tfds", write_archive(folder / f"{name}.tar.gz", name, contents[name]))
    return contents, folder / "tfds"


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


def assert_same(first, second):
    for split in ("train", "test"):
        np.testing.assert_array_equal(getattr(first, split).images, getattr(second, split).images)
        np.testing.assert_array_equal(getattr(first, split).labels, getattr(second, split).labels)


def no_decoding(*_):
    raise AssertionError("the records were read again")
