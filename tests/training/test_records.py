"""What a run writes down comes back the same, from older versions too; and rubbish is one line."""

import json

import pytest

from tests.sample_runs import HEADER
from wrn_jax.config.moving import NUMERIC
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.records import FORMAT, CheckpointNotes, EpochRow, EpochSums, Header, read_rows

ROW = EpochRow(
    epoch=1,
    step=10,
    moving={name: 0.1 for name in NUMERIC} | {"augmentation": "full"},
    train_loss=4.0,
    train_accuracy=0.1,
    test_loss=3.9,
    test_accuracy=0.12,
    seconds=2.5,
)
SUMS = EpochSums(loss=12.5, correct=3.0, examples=40, skipped=1, seconds=2.0)


@pytest.mark.parametrize(
    "record",
    [ROW, HEADER, CheckpointNotes(rollbacks=2, sums=SUMS), CheckpointNotes(rollbacks=0, metrics=ROW)],
    ids=["row", "header", "notes within an epoch", "notes at the end of one"],
)
def test_what_is_written_comes_back_with_and_without_a_format_number(record):
    tree = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    assert type(record).from_dict(tree, "file") == record
    for part in (tree, tree.get("metrics", {})):
        assert part.pop("format", FORMAT) == FORMAT
    assert type(record).from_dict(tree, "file") == record


def test_the_columns_of_a_row_are_the_moving_values_among_the_others():
    assert list(ROW.to_dict())[: 3 + len(ROW.moving)] == ["format", "epoch", "step", *ROW.moving]


def test_a_row_of_a_time_before_a_moving_value_is_one():
    older = {name: value for name, value in ROW.to_dict().items() if name != "label_smoothing"}
    assert EpochRow.from_dict(older, "file").moving == {k: v for k, v in ROW.moving.items() if k != "label_smoothing"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_loss": None}, "file, test_loss = None: should be a valid number"),
        ({"test_loss": "3.9"}, "file, test_loss = '3.9': should be a valid number"),
        ({"test_loss": float("nan")}, "file, test_loss = nan: should be a finite number"),
        ({"test_accuracy": 12.0}, "file, test_accuracy = 12.0: should be less than or equal to 1"),
        ({"skipped_steps": 0.5}, "file, skipped_steps = 0.5: should be a valid integer"),
        ({"dropout": "x"}, "file, dropout = 'x': should be a valid number"),
        ({"augmentation": 1}, "file, augmentation = 1: should be a valid string"),
        ({"loss": 1.0}, "file, loss: is not known to this version"),
        ({"format": 2}, "file: is of format 2; this version reads 1"),
    ],
)
def test_a_row_with_a_mistake_is_one_line(changes, message):
    with pytest.raises(UserError) as error:
        EpochRow.from_dict(ROW.to_dict() | changes, "file")
    assert str(error.value) == message


@pytest.mark.parametrize(("kind", "tree"), [(Header, {}), (Header, []), (CheckpointNotes, {}), (CheckpointNotes, None)])
def test_what_is_no_record_is_refused(kind, tree):
    with pytest.raises(UserError, match=r"^file(, \w+: is missing|: should be an object)$"):
        kind.from_dict(tree, "file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"null\n", "row 1 should be of epoch 1"),
        (b'{"epoch": 1\n{}\n', "line 1 is not JSON"),
        (b"\xff\n", "cannot be read: is not text"),
        (b"[" * 100_000 + b"\n{}\n", "line 1 is not JSON"),
    ],
)
def test_a_damaged_file_is_refused_but_an_unfinished_last_line_is_not(tmp_path, content, message):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"metrics\.jsonl: {message}"):
        read_rows(path)
    path.write_text(json.dumps(ROW.to_dict()) + '\n{"epoch": 2, "st')
    assert read_rows(path) == [ROW]
