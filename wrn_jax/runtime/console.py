"""What a command prints: lines, durations, live progress."""

import contextlib
import sys
import threading
import time
from collections.abc import Generator
from typing import Self

from tqdm import tqdm


def format_duration(seconds: float) -> str:
    """Seconds as people read them: 42s, 3m05s, 2h07m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


class Progress:
    """Live progress within an epoch: a bar on a terminal, elsewhere a line every `interval` seconds.

    Args:
      label: what the bar is called.
      total: steps in the epoch.
      active: whether to show anything.
      interval: seconds between lines where there is no terminal.
    """

    def __init__(self, label: str, total: int, active: bool, interval: float = 60.0):
        self._bar = (
            tqdm(total=total, desc=label, unit="step", leave=False, dynamic_ncols=True) if active and is_terminal() else None
        )
        self._label, self._total, self._active, self._interval = label, total, active, interval
        self._done = 0
        self._spoken = time.monotonic()

    def skip(self, steps: int) -> None:
        """Steps that were done before."""
        self._done += steps
        if self._bar is not None:
            self._bar.update(steps)

    def advance(self, loss: float) -> None:
        """One more step is finished, with this loss."""
        self._done += 1
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            self._bar.update()
        elif self._active and time.monotonic() - self._spoken > self._interval:
            self._spoken = time.monotonic()
            print(f"{self._label}: step {self._done}/{self._total}, loss {loss:.3f}", flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()


def is_terminal() -> bool:
    """Whether live progress can be drawn."""
    return sys.stderr.isatty()


def say(text: str, active: bool = True) -> None:
    """Prints a line without breaking a progress bar."""
    if active:
        tqdm.write(text) if is_terminal() else print(text, flush=True)


@contextlib.contextmanager
def waiting(text: str, interval: float = 30.0) -> Generator[None]:
    """Says on standard error what is going on, every `interval` seconds for how long already, and how long it took."""
    done = threading.Event()
    begin = time.perf_counter()

    def elapsed() -> str:
        return format_duration(time.perf_counter() - begin)

    def watch() -> None:
        while not done.wait(interval):
            print(f"... {elapsed()}", file=sys.stderr, flush=True)

    print(f"{text} ...", file=sys.stderr, flush=True)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    print(f"done in {elapsed()}", file=sys.stderr, flush=True)
