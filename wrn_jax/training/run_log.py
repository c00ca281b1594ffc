"""What a run writes for people and programs; process 0 only.

In the work directory:
  config.json    the configuration, fully resolved
  header.jsonl   one object for each start: time, command, hardware, versions
  metrics.jsonl  one object an epoch
  tensorboard/   the same figures as TensorBoard events
  curves.png     the same figures as a picture
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue] (made at run time)

from wrn_jax.config import timeline
from wrn_jax.runtime.console import say
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import reason, write_atomically
from wrn_jax.training.records import EpochRow, Header

Hook = Callable[[int, dict[str, float]], object]


class RunLog:
    """Writes the records of a run.

    Args:
      workdir: the work directory; exists.
      header: what to append to `header.jsonl`.
      rows: of the finished epochs; those of later ones go, since these epochs happen again.
      transitions: those that the finished updates have seen.
      check_workdir: raises UserError if the work directory is no longer there.
      active: whether this process writes at all.
      hyperparameters: of the run, by name, for TensorBoard.
      hook: called with the finished updates and the figures of an epoch once its line is on disk; it never stops a run.

    Attributes:
      rows: of all epochs so far.

    Raises:
      UserError: the records cannot be written.
    """

    def __init__(
        self,
        workdir: Path,
        header: Header,
        rows: Iterable[EpochRow],
        transitions: Iterable[timeline.Event],
        check_workdir: Callable[[], None],
        active: bool,
        hyperparameters: Mapping[str, Any] | None = None,
        hook: Hook | None = None,
    ):
        self.rows = list(rows)
        self._transitions = list(transitions)
        self._metrics, self._check_workdir, self._active = workdir / "metrics.jsonl", check_workdir, active
        self._written: int | None = None
        self._hook, self._told, self._is_hook_failing = hook, len(self.rows), False
        self._board = TensorBoard(workdir / "tensorboard", hyperparameters or {}, header.best_chosen_on)
        if active:
            try:
                append_line(workdir / "header.jsonl", json.dumps(header.to_dict()))
            except OSError as error:
                raise UserError(f"{workdir / 'header.jsonl'}: could not be written ({error.strerror})") from None
            if failure := self.write():
                raise UserError(failure)
            self._board.update(self.rows, self._transitions)

    def epoch(self, row: EpochRow) -> None:
        """Notes one epoch; `write` puts it on disk."""
        self.rows.append(row)
        if self._active:
            self._board.update(self.rows, self._transitions)

    def transition(self, event: timeline.Event) -> None:
        """Records a transition as a TensorBoard text."""
        self._transitions.append(event)
        if self._active:
            self._board.update(self.rows, self._transitions)

    def write(self) -> str | None:
        """Writes the rows that are not on disk yet; what went wrong, or None. Raises UserError without a work directory."""
        if not self._active:
            return None
        self._check_workdir()
        if self._written == len(self.rows):
            return None
        lines = [json.dumps(row.to_dict(), allow_nan=False) + "\n" for row in self.rows]
        try:
            write_atomically(self._metrics, "".join(lines))
        except OSError as error:
            return f"{error.filename or self._metrics}: could not be written ({error.strerror})"
        self._written = len(self.rows)
        self._tell_hook()
        return None

    def _tell_hook(self) -> None:
        """Hands the epochs that are new on disk to the hook, which is tried again at the next epoch if it fails."""
        try:
            while self._hook and self._told < len(self.rows):
                row = self.rows[self._told]
                self._hook(row.step or 0, scalars(row))
                self._told += 1
            self._is_hook_failing = False
        except Exception as error:
            if not self._is_hook_failing:
                say(f"the logger failed ({type(error).__name__}: {reason(error)}); going on without it, and trying again")
            self._is_hook_failing = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._board.close()


class TensorBoard:
    """The records as TensorBoard events: a convenience, which never stops a run nor makes it wait.

    tensorboardX has a thread write, which dies of the first failure and then lets the run wait for ever; here no thread does.
    Every start writes anew what was before, with wall times without the pauses, and replaces the events of the starts before:
    so each step and each transition is there once, wherever a run was killed or went back to.
    """

    def __init__(self, directory: Path, hyperparameters: Mapping[str, Any], judge: str):
        self._directory, self._hyperparameters, self._judge = directory, hyperparameters, judge
        self._writer: EventsWriter | None = None
        self._done = (0, 0)
        self._is_failing = False

    def update(self, rows: Sequence[EpochRow], transitions: Sequence[timeline.Event]) -> None:
        """Writes those that were not there at the call before; after a failure all."""
        try:
            if self._writer is None:
                self._writer, self._done = self._begin(), (0, 0)
            new_rows, new_transitions = rows[self._done[0] :], transitions[self._done[1] :]
            now = time.time()
            wall = now - sum(row.seconds or 0.0 for row in new_rows)
            for row in new_rows:
                wall += row.seconds or 0.0
                for tag, value in scalars(row).items():
                    self._writer.write_event(Event(wall_time=wall, step=row.step, summary=summary.scalar(tag, value)))
            for event in new_transitions:
                text = summary.text(f"transitions/{event.name}", f"{event.before} -> {event.after}")
                self._writer.write_event(Event(wall_time=now, step=event.step, summary=text))
            self._writer.flush()
            self._done = (len(rows), len(transitions))
            self._is_failing = False
        except Exception as error:
            if not self._is_failing:
                say(f"{self._directory}: could not be written ({reason(error)}); going on without it, and trying again")
            self._is_failing = True
            self.close()

    def _begin(self) -> EventsWriter:
        """Opens a file that takes the place of all before. Raises OSError."""
        self._directory.mkdir(exist_ok=True)
        for path in self._directory.glob("events.out.tfevents.*"):
            path.unlink()
        writer = EventsWriter(str(self._directory / "events"))
        # A TensorBoard that is looking forgets what it has read.
        writer.write_event(Event(wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)))
        if self._hyperparameters:
            columns = dict.fromkeys(f"{split}/{name}" for split in {self._judge, "test"} for name in ("accuracy", "loss"))
            experiment, start, _ = summary.hparams(as_columns(self._hyperparameters), columns)
            for part in (experiment, start):
                writer.write_event(Event(wall_time=time.time(), summary=part))
        return writer

    def close(self) -> None:
        """Closes the file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(Exception):
                writer.close()


def as_columns(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as TensorBoard's HPARAMS tab takes them: numbers, truth values and texts; what is None is left out."""
    plain = (bool, int, float, str)
    known = {name: value for name, value in hyperparameters.items() if value is not None}
    return {name: value if isinstance(value, plain) else json.dumps(value) for name, value in known.items()}


def scalars(row: EpochRow) -> dict[str, float]:
    """The figures of an epoch by TensorBoard's tags."""
    tags = {}
    for name, value in row.to_dict().items():
        if isinstance(value, int | float) and name not in ("format", "epoch", "step"):
            group, _, rest = name.partition("_")
            tags[f"{group}/{rest}" if group in ("train", "valid", "test") else f"run/{name}"] = value
    return tags


def append_line(path: Path, line: str) -> None:
    """Appends a line to a file, in place of one that a crash left unfinished. Raises OSError."""
    before = path.read_bytes() if path.exists() else b""
    write_atomically(path, before[: before.rfind(b"\n") + 1] + line.encode() + b"\n")
