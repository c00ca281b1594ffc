"""When a run saves, and what becomes of a save that fails."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import Diverged, UserError
from wrn_jax.training.checkpoints import Checkpoints, SaveFailed, is_finite
from wrn_jax.training.records import CheckpointNotes
from wrn_jax.training.run_log import RunLog

PAUSES = (1.0, 5.0)
"""Seconds to wait before the last save is tried again."""


class Saver:
    """Decides when to save within an epoch, records before it saves, and goes on when a save fails.

    Args:
      checkpoints: where to save.
      log: the records; no checkpoint is newer than them.
      last_step: finished updates of the checkpoint that the run goes on from; 0 for none.
      every_steps: updates between checkpoints within an epoch, or None.
      every_minutes: minutes between checkpoints within an epoch, or None.
      say: prints a line.

    Attributes:
      last_step: finished updates of the last save that was started, at first as given.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        log: RunLog,
        last_step: int,
        every_steps: int | None,
        every_minutes: float | None,
        say: Callable[[str], None],
    ):
        self._checkpoints, self._log, self._say = checkpoints, log, say
        self.last_step = last_step
        self._every_steps = every_steps
        # Clocks differ between processes, and all must save together: in a run of several, only steps count.
        self._every_seconds = 60 * every_minutes if every_minutes and jax.process_count() == 1 else math.inf
        self._saved_at = time.monotonic()
        self._asked: Any = None
        self._failure: str | None = None

    def steps_until_due(self, step: int) -> int:
        """Updates after `step` until a checkpoint is due by their number, at least 1."""
        return self._every_steps - step % self._every_steps if self._every_steps else sys.maxsize

    def is_due(self, step: int) -> bool:
        """Whether to save within an epoch, after `step` updates."""
        by_steps = self._every_steps is not None and step % self._every_steps == 0
        return by_steps or time.monotonic() - self._saved_at >= self._every_seconds

    def save(self, state: Any, step: int, epoch: int, accuracy: float | None, notes: CheckpointNotes) -> None:
        """Records what is not on record yet, and starts a save as `Checkpoints.save`; says so if something fails.

        Raises:
          Diverged: the state is not finite.
          UserError: the work directory is gone.
        """
        self._saved_at = time.monotonic()
        if not is_finite(state):
            last = f"the last checkpoint is of step {self.last_step}" if self.last_step else "there is no checkpoint yet"
            text = f"the state after step {step} is no longer finite, and is not saved; {last}"
            raise Diverged(text, notes.rollbacks, notes.back_to)
        self._asked = (state, step, epoch, accuracy, notes)
        told = None
        for _ in range(2):  # the first failure may be the save before's
            self._failure = self._start()
            if self._failure is None:
                return
            if self._failure != told:
                self._say(f"{self._failure}; going on, and trying again")
            told = self._failure

    def _start(self) -> str | None:
        """Records, and starts the save asked for last; what went wrong, or None."""
        failure = self._log.write()
        is_recorded = not devices.lead_says(failure is not None)
        try:
            if not is_recorded:
                self._checkpoints.wait()  # if it fails, what it wrote goes: on a full disk that is room for the records
                return failure or "the first process could not write the records"
            self._checkpoints.save(*self._asked)
        except SaveFailed as error:
            return f"a checkpoint could not be saved ({error})"
        self.last_step = self._asked[1]
        return None

    def finish(self) -> None:
        """Waits for the save asked for last, and tries again if it failed; to be called while its state is still there.

        Raises:
          UserError: it did not get there.
        """
        pauses = PAUSES if jax.process_count() == 1 else ()  # several processes would not agree on who tries again
        for pause in (*pauses, None):
            if self._failure is None:
                try:
                    return self._checkpoints.wait()
                except SaveFailed as error:
                    self._failure = f"a checkpoint could not be saved ({error})"
            if pause is not None:
                self._say(f"{self._failure}; trying again")
                time.sleep(pause)
                self._failure = self._start()
        where, step = self._checkpoints.directory, self._asked[1]
        raise UserError(f"{where}: the state after step {step} is not saved: {self._failure}; mend it, then --resume")
