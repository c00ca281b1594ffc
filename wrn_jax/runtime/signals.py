"""A run that is asked to stop: signals to a single process, preemption notices to many."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from types import FrameType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

from wrn_jax.runtime import entry
from wrn_jax.runtime.errors import Interrupted


class StopRequest:
    """Notices signals (`entry.SIGNALS`) inside its `with` block, so that a run can finish its step and save.

    A second signal ends the process at once, with 128 plus the signal's number as exit code (in an interactive session it
    raises KeyboardInterrupt instead). One that comes within a second is the same request, sent by two: a machine that shuts
    down signals the supervisor as well as the run. In a run of several processes JAX listens for SIGTERM itself, the other
    signals are passed on to it, and all processes agree on one step to stop at. What ends the block by another exception (a
    divergence, say) leaves a signal for those who come after.
    """

    def __init__(self) -> None:
        self._number = 0
        self._noted_at = 0.0
        self._stops = False
        self._is_single = jax.process_count() == 1
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if listener := entry.listener():
            listener.hear = self._note
        # Python runs signal handlers on the main thread only; a run on another one, in a notebook say, is left alone.
        elif threading.current_thread() is threading.main_thread():
            numbers = [number for number in entry.taken() if self._is_single or number != signal.SIGTERM]
            self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        is_over = error is None or isinstance(error, Interrupted)
        if listener := entry.listener():
            # Once all is saved, nothing shall change the exit code.
            listener.hear = (lambda number: None) if self._number and is_over else listener.leave
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._number and not is_over:
            signal.raise_signal(self._number)

    def _note(self, number: int, frame: FrameType | None = None) -> None:
        if self._number and time.monotonic() - self._noted_at > 1.0:
            if hasattr(sys, "ps1"):  # an interactive session outlives the run
                raise KeyboardInterrupt
            os._exit(128 + number)
        if not self._is_single and not self._number:
            os.kill(os.getpid(), signal.SIGTERM)
        self._number = self._number or number
        self._noted_at = time.monotonic()

    def pending(self) -> str:
        """The name of the signal that came, else ""; in a run of several processes "", as only `received` has them agree."""
        return signal.Signals(self._number).name if self._number and self._is_single else ""

    def received(self, step: int) -> str:
        """The name of the signal that came, else "". In a run of several processes, call it with every `step` on all."""
        if self._is_single:
            return self.pending()
        # The sync point is true for one step only, and a run may not be able to stop right there.
        self._stops = self._stops or multihost_utils.reached_preemption_sync_point(step)
        return signal.SIGTERM.name if self._stops else ""


@contextlib.contextmanager
def keeping_interrupts() -> Generator[None]:
    """An interrupt in the block comes out of it as KeyboardInterrupt, whatever a library there makes of it: in a notebook, say.

    A command needs none of this: its listener ends it.
    """
    is_ours = threading.current_thread() is threading.main_thread()
    is_ours = is_ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        raise KeyboardInterrupt

    if is_ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if came:
            raise KeyboardInterrupt from None
