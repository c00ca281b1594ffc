"""Records come before checkpoints, and a save that fails is tried again and told."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import pytest

from tests.sample_runs import HEADER, row
from wrn_jax.runtime.errors import Diverged, UserError
from wrn_jax.training import saver
from wrn_jax.training.checkpoints import SaveFailed
from wrn_jax.training.records import CheckpointNotes, read_rows
from wrn_jax.training.run_log import RunLog
from wrn_jax.training.saver import Saver

NOTES = CheckpointNotes(rollbacks=2)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    params: jax.Array
    step: jax.Array


class FakeCheckpoints:
    """Fails to start, or fails in the background, as often as it is told to."""

    directory = "checkpoints"

    def __init__(self):
        self.starts_to_fail = self.writes_to_fail = 0
        self.steps, self.remains = [], None
        self._pending = None

    def save(self, state, step, *about):
        self.wait()
        if self.starts_to_fail > 0:
            self.starts_to_fail -= 1
            raise SaveFailed("No space left on device")
        self._pending = step

    def wait(self):
        pending, self._pending = self._pending, None
        if pending is not None and self.writes_to_fail > 0:
            self.writes_to_fail -= 1
            if self.remains:
                self.remains.rmdir()
            raise SaveFailed("Input/output error")
        if pending is not None:
            self.steps.append(pending)


class Run:
    """A run of as many epochs as `epoch` is called, with real records in `workdir` and fake checkpoints."""

    def __init__(self, workdir, monkeypatch):
        monkeypatch.setattr(saver, "PAUSES", (0.0, 0.0))
        self.workdir, self.lines, self.checkpoints = workdir, [], FakeCheckpoints()
        self.log = RunLog(workdir, HEADER, [], [], lambda: None, active=True)
        self.saver = Saver(self.checkpoints, self.log, 0, None, None, self.lines.append)
        self.epochs = 0

    def epoch(self, value=1.0):
        self.epochs += 1
        self.log.epoch(row(self.epochs, 0.5))
        state = State(jnp.array([value, 0.0]), jnp.int32(4 * self.epochs))
        self.saver.save(state, 4 * self.epochs, self.epochs, 0.5, NOTES)

    @property
    def recorded(self):
        return [4 * row.epoch for row in read_rows(self.workdir / "metrics.jsonl")]

    @property
    def saved(self):
        self.checkpoints.wait()
        return self.checkpoints.steps


@pytest.fixture
def run(tmp_path, monkeypatch):
    run = Run(tmp_path, monkeypatch)
    with run.log:
        yield run


def test_no_checkpoint_is_newer_than_its_record(run):
    run.epoch()
    (run.workdir / "metrics.jsonl.tmp").mkdir()
    run.epoch()
    run.epoch()
    assert run.recorded == run.saved == [4]
    assert len(run.lines) == 2
    assert all("metrics.jsonl.tmp: could not be written (Is a directory); going on" in line for line in run.lines)
    message = r"checkpoints: the state after step 12 is not saved: .*metrics\.jsonl\.tmp: could not .*; mend it, then --resume$"
    with pytest.raises(UserError, match=message):
        run.saver.finish()
    (run.workdir / "metrics.jsonl.tmp").rmdir()
    run.saver.finish()
    assert run.recorded == [4, 8, 12]
    assert run.saved == [4, 12]


@pytest.mark.parametrize("failing", ["starts_to_fail", "writes_to_fail"])
@pytest.mark.parametrize(("times", "saved"), [(1, [4, 8]), (2, [4, 8]), (9, [4])])
def test_the_last_save_is_tried_again_before_a_run_ends_without_it(run, failing, times, saved):
    run.epoch()
    assert run.saved == [4]
    setattr(run.checkpoints, failing, times)
    run.epoch()
    ending = pytest.raises(UserError, match=r"after step 8 is not saved: a checkpoint could not be saved \((No|Input)")
    with contextlib.nullcontext() if 8 in saved else ending:
        run.saver.finish()
    assert run.saved == saved


def test_a_save_that_fails_in_the_background_is_told_at_the_next(run):
    run.epoch()
    run.checkpoints.writes_to_fail = 1
    run.epoch()
    run.saver.finish()
    assert run.saved == [8]
    assert run.lines == ["a checkpoint could not be saved (Input/output error); going on, and trying again"]


def test_what_a_failed_save_left_on_a_full_disk_gives_way_to_the_records(run):
    run.epoch()
    run.checkpoints.writes_to_fail, run.checkpoints.remains = 1, run.workdir / "metrics.jsonl.tmp"
    run.checkpoints.remains.mkdir()
    run.epoch()
    assert run.lines == ["a checkpoint could not be saved (Input/output error); going on, and trying again"]
    assert run.recorded == [4, 8]
    assert run.saved == [8]


def test_a_state_that_is_not_finite_is_not_saved(run):
    run.epoch()
    with pytest.raises(Diverged, match=r"after step 8 is no longer finite, .*; the last checkpoint is of step 4") as error:
        run.epoch(float("inf"))
    assert error.value.rollbacks == 2
    assert run.saved == [4]
