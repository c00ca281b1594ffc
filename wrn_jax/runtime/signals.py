"""Being asked to stop: signals to a single process, preemption notices to many."""

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Notices SIGTERM and SIGINT inside its `with` block, so that a run can finish its step and save.

    A second signal ends the process at once, with 128 plus the signal's number as exit code (in an interactive session it
    raises KeyboardInterrupt instead); one that comes within a second
    is the same request, sent by two (a machine that shuts down signals the supervisor as well as the run). In a run of
    several processes JAX listens for SIGTERM itself, and all processes agree on one step to stop at.
    """

    def __init__(self) -> None:
        self._name = ""
        self._noted_at = 0.0
        self._is_single = jax.process_count() == 1
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Python runs signal handlers on the main thread only; a run on another one, in a notebook say, is left alone.
        if self._is_single and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._name and time.monotonic() - self._noted_at > 1.0:
            if hasattr(sys, "ps1"):  # an interactive session outlives the run
                raise KeyboardInterrupt
            os._exit(128 + number)
        self._name = self._name or signal.Signals(number).name
        self._noted_at = time.monotonic()

    def received(self, step: int) -> str:
        """The name of the signal that came, else "". In a run of several processes, call it with every `step` on all."""
        # The sync point is true for one step only, and a run may not be able to stop right there.
        if not self._is_single and multihost_utils.reached_preemption_sync_point(step):
            self._name = signal.SIGTERM.name
        return self._name
