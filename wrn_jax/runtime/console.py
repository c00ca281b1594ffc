"""What a command prints: lines, durations, live progress."""

import contextlib
import math
import sys
import textwrap
import threading
import time
from collections.abc import Generator
from typing import Any, Self

from tqdm import tqdm


def format_duration(seconds: float) -> str:
    """Seconds as people read them: 42s, 3m05s, 2h07m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


WIDTH = 128
"""Columns of tables and texts."""


def wrapped(head: str, text: str) -> list[str]:
    """`head` and `text` in lines of at most `WIDTH` columns, the further ones indented as far as the first."""
    return textwrap.wrap(head + text, WIDTH, subsequent_indent=" " * len(head), break_on_hyphens=False)


class Progress:
    """Live progress of a count: a bar on a terminal, elsewhere a line now and then.

    Args:
      label: what is done.
      total: how much of it there is; 0 if nobody knows.
      unit: what is counted, such as "step".
      active: whether to show anything.
      interval: seconds between lines where there is no terminal.
      stays: whether a bar stays when all is done.
    """

    def __init__(self, label: str, total: int, unit: str, active: bool = True, interval: float = 60.0, stays: bool = False):
        self._label, self._total, self._unit, self._active, self._interval = label, total, unit, active, interval
        self._done = 0
        self._began = self._spoken = time.monotonic()
        self._bar = None
        if active and is_terminal():
            options: dict[str, Any] = {"leave": stays, "unit_scale": unit != "step", "dynamic_ncols": True}
            self._bar = tqdm(total=total or None, desc=label, unit=unit, file=sys.stderr, **options)

    def skip(self, count: int) -> None:
        """So many were done before."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)

    def advance(self, count: int = 1, note: str = "") -> None:
        """So many more are done; `note` is shown beside the count, in a line instead of the time left."""
        self._done += count
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif self._active and (now := time.monotonic()) - self._spoken > self._interval:
            self._spoken = now
            left = (now - self._began) / self._done * (self._total - self._done)
            counted = f"{self._unit} {self._done}/{self._total}" if note else f"{self._done} of {self._total}"
            say(f"{self._label}: {counted}, {note or f'{format_duration(left)} left'}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()


def announced(label: str, total: int, unit: str) -> Progress:
    """Progress of work before a command's own: where there is no bar, one line at its start, on standard error."""
    if not is_terminal():
        tell(label)
    return Progress(label, total, unit, interval=math.inf, stays=True)


def is_terminal() -> bool:
    """Whether live progress can be drawn."""
    return sys.stderr.isatty()


def say(text: str, active: bool = True) -> None:
    """Prints a line without breaking a progress bar."""
    if active:
        tqdm.write(text) if is_terminal() else print(text, flush=True)


def tell(text: str) -> None:
    """Prints a line on standard error: what is no result."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def waiting(text: str, interval: float = 30.0) -> Generator[None]:
    """Says on standard error what is going on, every `interval` seconds for how long already, and how long it took."""
    done = threading.Event()
    begin = time.perf_counter()

    def elapsed() -> str:
        return format_duration(time.perf_counter() - begin)

    def watch() -> None:
        while not done.wait(interval):
            tell(f"... {elapsed()}")

    tell(f"{text} ...")
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    tell(f"done in {elapsed()}")
