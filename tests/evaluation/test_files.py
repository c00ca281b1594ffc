"""The files of an evaluation: written whole, and read back by what wrote them."""

import contextlib
import json
import math

import numpy as np
import pytest

from wrn_jax.evaluation import files, metrics
from wrn_jax.evaluation.files import Record
from wrn_jax.runtime.errors import UserError

SCORED = metrics.score(np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), np.array([0, 1]))
RECORD = Record(
    step=20, epoch=2, chosen_as=["best"], judge="valid", splits={"test": metrics.summary(SCORED)}, clean_gap=0.12345678,
    confused=[("b", "c", 1)], corruptions={"fog": [0.5, 0.25]},
)  # fmt: skip


def test_what_is_written_is_read(tmp_path):
    files.write(tmp_path, "step-20", RECORD, {"test": SCORED})
    record = files.read(tmp_path / "step-20.json")
    assert (record.clean_gap, record.confused, record.corruptions) == (0.123457, [("b", "c", 1)], {"fog": [0.5, 0.25]})
    assert Record.from_dict(record.to_dict(), tmp_path) == record
    correct, digest = files.read_correct(tmp_path / "step-20.npz", 2)
    assert (correct.tolist(), digest) == ([True, False], files.digest(np.array([0, 1])))
    assert files.read_correct(tmp_path / "step-21.npz", 2) is None


def test_evaluations_of_updates_that_are_done_anew_are_set_aside(tmp_path):
    assert files.set_aside(tmp_path / "evaluations", 0) == []
    for stem in ("step-20", "step-100-raw", "step-100"):
        files.write(tmp_path, stem, RECORD, {"test": SCORED})
    assert files.set_aside(tmp_path, 100) == []
    assert files.set_aside(tmp_path, 99) == [f"evaluations after step 99 are outdated; moved to {tmp_path / 'outdated'}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outdated", "step-20.json", "step-20.npz"]
    assert len([*(tmp_path / "outdated").iterdir()]) == 4


def test_a_number_that_is_not_finite_is_none():
    summary = metrics.summary(metrics.score(np.array([[math.nan, 0.0]]), np.array([0])))
    tree = Record(step=1, epoch=1, splits={"test": summary}).to_dict()
    assert (tree["splits"]["test"]["loss"], tree["splits"]["test"]["without_prediction"]) == (None, 1)
    assert Record.from_dict(tree, "a").splits["test"]["loss"] is None


def test_a_record_without_a_format_number_and_with_few_figures():
    record = Record.from_dict({"step": 4, "epoch": 1, "splits": {"test": {"count": 2, "accuracy": 0.5}}}, "a")
    assert (record.step, record.flip, record.to_dict()["format"]) == (4, None, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "a: is of format 2; this version reads 1"),
        ({"splits": {}}, "a: is no evaluation"),
        ({"splits": {"test": {"count": 1}}}, "a: is no evaluation"),
        ({"splits": {"test": {"count": 1, "accuracy": math.nan}}}, "a: is no evaluation"),
        ({"epoch": "five"}, "a: is no evaluation"),
        ({"epoch": 5.0}, r"a: is no evaluation \(epoch: Input should be a valid integer"),
        ({"epoch": -1}, r"a: is no evaluation \(epoch: "),
        ({"step": 10**400}, None),  # a number, though no run has it
        ({"splits": {"test": {"count": 1, "accuracy": 7}}}, r"a: is no evaluation \(accuracy: .* less than or equal to 1\)"),
        ({"splits": {"test": {"count": 1, "accuracy": -1}}}, r"a: is no evaluation \(accuracy: "),
        ({"splits": {"test": {"count": 1, "accuracy": True}}}, r"a: is no evaluation \(accuracy: "),
        ({"splits": {"test": {"count": 1, "accuracy": 10**400}}}, r"a: is no evaluation \(accuracy: "),
        ({"splits": {"test": {"count": 1, "accuracy": 0.5, "calibration_error": "x"}}}, r"evaluation \(calibration_error: "),
        ({"splits": {"test": {"count": 1, "accuracy": 0.5, "loss": math.inf}}}, r"a: is no evaluation \(loss: "),
        ({"splits": {"test": {"count": 0, "accuracy": 0.5}}}, r"a: is no evaluation \(count: "),
        ({"splits": {"valid": {"count": 1, "accuracy": 0.5}}}, "a: is no evaluation"),
        ({"flip": {"count": 1, "accuracy": [1]}}, r"a: is no evaluation \(accuracy: "),
        ({"temperature": {"value": 0}}, r"a: is no evaluation \(value: "),
        ({"corruptions": {}}, r"a: is no evaluation \(corruptions: "),
        ({"corruptions": {"fog": []}}, r"a: is no evaluation \(corruptions.fog: "),
        ({"corruptions": {"fog": 1}}, r"a: is no evaluation \(corruptions.fog: "),
    ],
)
def test_what_is_no_record_is_refused(change, message):
    with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
        Record.from_dict(RECORD.to_dict() | change, "a")


@pytest.mark.parametrize(
    "change",
    [
        {"test_predicted": np.array(["a", "b"])},
        {"test_labels": np.array([math.nan, 1.0])},
        {"test_digest": np.array(["a", "b"])},
        {"test_digest": np.array(1)},
        {"test_predicted": np.zeros(0, int), "test_labels": np.zeros(0, int)},
        {"test_predicted": np.zeros(1, int), "test_labels": np.zeros(1, int)},
    ],
)
def test_predictions_that_are_none_are_refused(tmp_path, change):
    whole = {"test_predicted": np.zeros(2, int), "test_labels": np.zeros(2, int), "test_digest": np.array("a")}
    np.savez(tmp_path / "a.npz", **(whole | change))
    with pytest.raises(UserError, match=r"a.npz: holds no readable predictions"):
        files.read_correct(tmp_path / "a.npz", 2)


def test_files_are_replaced_whole(tmp_path, monkeypatch):
    files.write(tmp_path, "step-1", RECORD, {"test": SCORED})
    files.write(tmp_path, "step-1", Record(step=1, epoch=1, splits=RECORD.splits), {"test": SCORED, "train": SCORED})
    with np.load(tmp_path / "step-1.npz") as arrays:
        assert arrays["train_predicted"].tolist() == [0, 2]
    assert json.loads((tmp_path / "step-1.json").read_text())["step"] == 1
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"step-1.json: cannot be written \(No space left on device\)"):
        files.write(tmp_path, "step-1", RECORD, {"test": SCORED})
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
