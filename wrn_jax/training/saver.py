"""When a run saves, and what becomes of a save that fails."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from wrn_jax.runtime.errors import UserError
from wrn_jax.training.checkpoints import Checkpoints, SaveFailed
from wrn_jax.training.records import CheckpointNotes


class Saver:
    """Decides when to save within an epoch, and goes on when a save fails.

    Args:
      checkpoints: where to save.
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
        last_step: int,
        every_steps: int | None,
        every_minutes: float | None,
        say: Callable[[str], None],
    ):
        self._checkpoints, self._say = checkpoints, say
        self.last_step = last_step
        self._every_steps = every_steps
        # Clocks differ between processes, and all must save together: in a run of several, only steps count.
        self._every_seconds = 60 * every_minutes if every_minutes and jax.process_count() == 1 else math.inf
        self._saved_at = time.monotonic()

    def steps_until_due(self, step: int) -> int:
        """Updates after `step` until a checkpoint is due by their number, at least 1."""
        return self._every_steps - step % self._every_steps if self._every_steps else sys.maxsize

    def is_due(self, step: int) -> bool:
        """Whether to save within an epoch, after `step` updates."""
        by_steps = self._every_steps is not None and step % self._every_steps == 0
        return by_steps or time.monotonic() - self._saved_at >= self._every_seconds

    def save(self, state: Any, step: int, epoch: int, accuracy: float | None, notes: CheckpointNotes) -> None:
        """As `Checkpoints.save`; if the save before failed, says so and saves anew."""
        self._saved_at = time.monotonic()
        for _ in range(2):  # the first failure may be the save before's
            try:
                self._checkpoints.save(state, step, epoch, accuracy, notes)
                self.last_step = step
                return
            except SaveFailed as error:
                self._say(f"a checkpoint could not be saved ({error}); going on, and trying again")

    def finish(self) -> None:
        """Waits for the last save. Raises UserError if it failed."""
        try:
            self._checkpoints.wait()
        except SaveFailed as error:
            raise UserError(
                f"{self._checkpoints.directory}: the last checkpoint could not be saved ({error}); mend it, then --resume"
            ) from None
