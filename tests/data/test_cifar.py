"""Reading CIFAR on small prepared folders: every pixel, the cache, and the errors of damaged folders and caches."""

import io
import json
import os
import re
import shutil
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest

from tests import fake_cifar
from tests.fake_cifar import assert_same, no_decoding, one_line, ordinary_rights, records_of
from wrn_jax.config.datasets import DATASETS
from wrn_jax.data import cifar
from wrn_jax.runtime import files
from wrn_jax.runtime.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Contents of small archives of both sets, and a TFDS folder prepared from them."""
    return fake_cifar.prepare_both(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def small_sets(monkeypatch):
    fake_cifar.use_small_counts(monkeypatch)


@pytest.fixture
def folder(prepared, tmp_path, small_sets):
    """A copy of the small cifar100 folder, to be damaged."""
    return Path(shutil.copytree(prepared[1] / "cifar100", tmp_path / "tfds" / "cifar100")) / "3.0.2"


def read(directory, tmp_path, name="cifar100"):
    """The splits and class names of a set below a TFDS data folder, through a cache in tmp_path."""
    folder = cifar.find_version(Path(directory), name)
    splits, class_names = cifar.read_cached(name, folder, tmp_path / "arrays")
    return types.SimpleNamespace(**splits, class_names=class_names)


def read_copy(folder, tmp_path):
    return read(folder.parent.parent, tmp_path)


@pytest.mark.parametrize("name", ["cifar100", "cifar10"])
def test_every_pixel_is_read(prepared, small_sets, tmp_path, name):
    contents, directory = prepared
    dataset = read(directory, tmp_path, name)
    assert dataset.class_names == tuple(f"name{index}" for index in range(DATASETS[name].num_classes))
    for split in cifar.SPLITS:
        found = getattr(dataset, split)
        assert found.images.dtype == np.uint8
        assert found.labels.dtype == np.int32
        images, labels = records_of(name, contents[name], split)
        expected = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
        assert {image.tobytes(): label for image, label in zip(found.images, found.labels, strict=True)} == expected
        assert len(found.images) == len(images) == len(expected)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    read_copy(folder, tmp_path)
    assert "decoding cifar100 train: 100%" in sys.stderr.getvalue()
    assert "300/300" in sys.stderr.getvalue()


def edit_info(change):
    """Damage to dataset_info.json: `change` gets the parsed content."""

    def damage(folder):
        path = folder / "dataset_info.json"
        info = json.loads(path.read_text())
        change(info)
        path.write_text(json.dumps(info))

    return damage


def edit_file(name, change):
    """Damage to a file: `change` maps its bytes to new ones."""

    def damage(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def edit_records(split, change):
    """Damage to a record file that leaves it well formed: `change` maps the list of examples to a new one."""

    def damage(folder):
        import tensorflow_datasets as tfds
        from array_record.python.array_record_module import ArrayRecordWriter
        from tensorflow_datasets.proto import tf_example_pb2

        source = tfds.data_source("cifar100", split=split, data_dir=folder.parent.parent, download=False).data_source
        records = source.__getitems__(range(len(source)))
        examples = change([tf_example_pb2.Example.FromString(record) for record in records])
        writer = ArrayRecordWriter(str(folder / f"cifar100-{split}.array_record-00000-of-00001"), "group_size:1")
        for example in examples:
            writer.write(example.SerializeToString())
        writer.close()

    return damage


def set_label(label):
    def change(examples):
        examples[0].features.feature["label"].int64_list.value[0] = label
        return examples

    return change


def set_image(mode, size):
    def change(examples):
        from PIL import Image

        png = io.BytesIO()
        Image.new(mode, size).save(png, "PNG")
        examples[5].features.feature["image"].bytes_list.value[0] = png.getvalue()
        return examples

    return change


def break_png(examples):
    values = examples[5].features.feature["image"].bytes_list.value
    values[0] = values[0][:200]
    return examples


def replace_by_folder(name):
    def damage(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def rename_split(info):
    info["splits"][0]["name"] = "training"


def change_length(info):
    info["splits"][1]["shardLengths"] = ["99"]


TRAIN, TEST = "cifar100-train.array_record-00000-of-00001", "cifar100-test.array_record-00000-of-00001"
DAMAGES = {
    "info is no JSON": (edit_file("dataset_info.json", lambda text: text[:-20]), "dataset_info.json: is damaged"),
    "info of another kind": (edit_file("dataset_info.json", lambda text: b"[1]"), "dataset_info.json: is damaged"),
    "info without splits": (edit_info(lambda info: info.pop("splits")), "dataset_info.json: is damaged"),
    "other format": (edit_info(lambda info: info.update(fileFormat="tfrecord")), "format tfrecord"),
    "missing split": (edit_info(rename_split), "split 'train' is missing, found ['test', 'training']"),
    "wrong count": (edit_info(change_length), "split 'test' has 99 records; expected 100"),
    "99 classes": (
        edit_file("label.labels.txt", lambda text: text[: text.rindex(b"name99")]),
        "label.labels.txt: found 99 class names; expected 100",
    ),
    "no class names": (lambda folder: (folder / "label.labels.txt").unlink(), "label.labels.txt: cannot be read"),
    "no features": (lambda folder: (folder / "features.json").unlink(), "features.json: cannot be read"),
    "bad features": (edit_file("features.json", lambda text: b"{"), f"{TRAIN}: cannot be read"),
    "no record file": (lambda folder: (folder / TEST).unlink(), f"{TEST}: cannot be read (No such file"),
    "folder for file": (replace_by_folder(TEST), f"{TEST}: cannot be read (Is a directory)"),
    "truncated": (edit_file(TRAIN, lambda content: content[: len(content) // 2]), f"{TRAIN}: cannot be read"),
    "shortened": (edit_file(TEST, lambda content: content[:-1000]), f"{TEST}: cannot be read"),
    "empty": (edit_file(TEST, lambda content: b""), f"{TEST}: cannot be read"),
    "flipped": (
        edit_file(TRAIN, lambda content: content[:90_000] + b"?" + content[90_001:]),
        f"{TRAIN}: cannot be read",
    ),
    "too few": (edit_records("test", lambda examples: examples[:-1]), "expected 100 records of cifar100 test"),
    "label 100": (edit_records("test", set_label(100)), "found labels from 0 to 100; expected 0 to 99"),
    "label -1": (edit_records("test", set_label(-1)), "found labels from -1 to 99; expected 0 to 99"),
    "unbalanced": (
        edit_records("train", lambda examples: [*examples[:-1], examples[0]]),
        "found between 2 and 4 records of a class; expected 3 of each",
    ),
    "small image": (edit_records("train", set_image("RGB", (16, 16))), "record 5 is an image of (16, 16, 3) uint8"),
    "grey image": (edit_records("train", set_image("L", (32, 32))), "record 5 is an image of (32, 32) uint8"),
    "broken image": (edit_records("train", break_png), f"{TRAIN}: cannot be read"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_folder_is_one_line(folder, tmp_path, case):
    damage, expected = DAMAGES[case]
    read_copy(folder, tmp_path)  # a cache of the whole folder does not hide the damage
    damage(folder)
    with pytest.raises(UserError) as error:
        read_copy(folder, tmp_path)
    assert expected in one_line(error)
    assert "expected" in one_line(error)
    assert str(folder) in one_line(error)


@pytest.mark.parametrize("locked", ["cifar100", "cifar100/3.0.2", f"cifar100/3.0.2/{TEST}"])
def test_missing_permission_is_one_line(prepared, small_sets, tmp_path, locked):
    # Not below tmp_path, which pytest closes to everyone else.
    with tempfile.TemporaryDirectory() as directory:
        shutil.copytree(prepared[1] / "cifar100", f"{directory}/cifar100")
        os.chmod(directory, 0o755)
        os.chmod(f"{directory}/{locked}", 0)
        with ordinary_rights(), pytest.raises(UserError) as error:
            read(directory, tmp_path)
        os.chmod(f"{directory}/{locked}", 0o755)
    assert one_line(error).startswith(f"{directory}/{locked}: cannot be ")
    assert "Permission denied" in one_line(error)
    assert "expected a" in one_line(error)


def test_file_in_place_of_the_folder_is_one_line(small_sets, tmp_path):
    (tmp_path / "cifar100").write_text("not a folder")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/cifar100: cannot be listed (Not a directory)")):
        read(tmp_path, tmp_path)


def test_directory_comes_from_argument_then_environment_then_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", "~/elsewhere")
    assert cifar.resolve_directory("/given") == Path("/given")
    assert cifar.resolve_directory(None) == tmp_path / "elsewhere"
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert cifar.resolve_directory(None) == tmp_path / "tensorflow_datasets"
    with pytest.raises(UserError, match="gs://bucket: is a remote path"):
        cifar.resolve_directory("gs://bucket")


def test_newest_version_is_read(folder, tmp_path):
    folder.rename(folder.with_name("3.0.2.backup"))
    shutil.copytree(folder.with_name("3.0.2.backup"), folder.with_name("3.0.9"))
    shutil.copytree(folder.with_name("3.0.2.backup"), folder.with_name("3.0.10"))
    folder.with_name("9.0.0").mkdir()  # unfinished: no dataset_info.json
    assert cifar.find_version(folder.parent.parent, "cifar100") == folder.with_name("3.0.10")


def test_a_version_that_can_be_read_goes_before_a_newer_one(folder, tmp_path):
    newer = Path(shutil.copytree(folder, folder.with_name("4.0.0")))
    edit_info(lambda info: info.update(fileFormat="tfrecord"))(newer)
    assert cifar.find_version(folder.parent.parent, "cifar100") == folder


def test_a_version_that_this_tfds_does_not_know_is_read(folder, tmp_path):
    first = read_copy(folder, tmp_path)
    edit_info(lambda info: info.update(version="9.9.9"))(folder)
    folder.rename(folder.with_name("9.9.9"))
    assert_same(read(folder.parent.parent, tmp_path), first)


def cache_file(tmp_path):
    (file,) = (tmp_path / "arrays").iterdir()
    return file


def test_second_load_comes_from_the_cache(folder, tmp_path, monkeypatch):
    first = read_copy(folder, tmp_path)
    assert re.fullmatch(r"cifar100-3\.0\.2-[0-9a-f]{16}\.npz", cache_file(tmp_path).name)
    monkeypatch.setattr(cifar, "_read_records", no_decoding)
    assert_same(read_copy(folder, tmp_path), first)
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert_same(read_copy(folder, tmp_path), first)  # the same content at another time
    moved = folder.parent.parent.rename(tmp_path / "moved")
    assert_same(read(moved, tmp_path), first)  # or in another place


def test_changed_folder_is_read_again(folder, tmp_path):
    first = read_copy(folder, tmp_path)
    before = (folder / TEST).stat()
    edit_records("test", lambda examples: examples[::-1])(folder)
    os.utime(folder / TEST, ns=(before.st_atime_ns, before.st_mtime_ns))
    np.testing.assert_array_equal(read_copy(folder, tmp_path).test.images, first.test.images[::-1])
    assert len(list((tmp_path / "arrays").iterdir())) == 2


def write_arrays(path, **changes):
    with np.load(path) as arrays:
        content = dict(arrays) | changes
    with open(path, "wb") as file:
        np.savez(file, **content)


def keep_one_array(path):
    with np.load(path) as arrays:
        images = arrays["test_images"]
    with open(path, "wb") as file:
        np.save(file, images)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:100_000]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"garbage" * 1000),
        lambda path: path.write_bytes(path.read_bytes()[:50_000] + b"?" + path.read_bytes()[50_001:]),
        lambda path: write_arrays(path, test_images=np.zeros((100, 16, 16, 3), np.uint8)),
        lambda path: write_arrays(path, train_labels=np.full(300, 100, np.int32)),
        lambda path: write_arrays(path, test_images=np.array([{}], dtype=object)),
        keep_one_array,
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["truncated", "empty", "garbage", "flipped", "shape", "labels", "pickle", "npy", "folder"],
)
def test_damaged_cache_is_made_again(folder, tmp_path, capsys, damage):
    first = read_copy(folder, tmp_path)
    damage(cache_file(tmp_path))
    capsys.readouterr()
    assert_same(read_copy(folder, tmp_path), first)
    message = capsys.readouterr().err.splitlines()[0]
    assert message.startswith(f"{cache_file(tmp_path)}: the cached arrays are unusable (")
    assert "again" in message
    if cache_file(tmp_path).is_file():
        assert_same(read_copy(folder, tmp_path), first)
        assert capsys.readouterr().err == ""


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_cache_cannot_run_code(folder, tmp_path):
    first = read_copy(folder, tmp_path)
    write_arrays(cache_file(tmp_path), test_images=np.array([Code(tmp_path / "made")], dtype=object))
    assert_same(read_copy(folder, tmp_path), first)
    assert not (tmp_path / "made").exists()


def test_unwritable_cache_is_a_warning(folder, tmp_path, capsys):
    (tmp_path / "arrays").write_text("a file where the folder should be")
    dataset = read_copy(folder, tmp_path)
    assert len(dataset.train.images) == 300
    warning = capsys.readouterr().err.splitlines()[-1]
    assert warning.startswith(f"warning: {tmp_path}/arrays/cifar100-3.0.2-")
    assert "cannot write the cache" in warning


def test_full_disk_leaves_no_part_of_a_cache(folder, tmp_path, capsys, monkeypatch):
    def half(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", half)
    read_copy(folder, tmp_path)
    assert "cannot write the cache (No space left on device)" in capsys.readouterr().err
    assert list((tmp_path / "arrays").iterdir()) == []


def test_cache_lies_in_the_users_cache_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    cifar.read_cached("cifar100", folder, None)
    assert len(list((tmp_path / "xdg" / "wrn_jax").glob("cifar100-3.0.2-*.npz"))) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert files.cache_folder(None) == tmp_path / "home" / ".cache" / "wrn_jax"


def test_superclasses_are_the_coarse_labels_of_the_records():
    directory = cifar.resolve_directory(None)
    folder = cifar.find_version(directory, "cifar100")
    if folder is None:
        pytest.skip("CIFAR-100 is not here")
    import tensorflow_datasets as tfds

    known = DATASETS["cifar100"]
    assert (folder / "coarse_label.labels.txt").read_text().split() == list(known.superclasses)
    names = sorted(name for names in known.superclasses.values() for name in names)
    assert (folder / "label.labels.txt").read_text().split() == names
    source = tfds.data_source(
        f"cifar100:{folder.name}",
        split="test",
        data_dir=directory,
        download=False,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    found = {(int(record["label"]), int(record["coarse_label"])) for record in source.__getitems__(list(range(2000)))}
    assert found == set(enumerate(known.superclass_of))
