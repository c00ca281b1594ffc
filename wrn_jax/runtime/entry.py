"""What a command does first of all, before the imports that take seconds: its streams, its signals, its last resort.

Imports nothing but the standard library, so that all this holds from the start.
"""

import codecs
import contextlib
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from types import FrameType, TracebackType
from typing import Any, NoReturn

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
"""What asks a process to end: machines and schedulers, people, a terminal that closes, and what users of Slurm choose."""

MIN_ADDRESS_SPACE = 2 * 2**30
"""Bytes below which the C++ parts of JAX and OpenBLAS abort, or wait for ever, before an error can be told: measured for the
smallest network on two cores; more of either need more."""

_BARS = str.maketrans("▁▂▃▄▅▆▇█→–≥≤×", ".:-=+*%#>-><x")


def begin(program: str) -> None:
    """Prepares the process of the command `program`; to be called once, before anything else is imported."""
    keep_standard_streams()
    Listener(program).listen()
    sys.excepthook = _imports_failed
    if (limit := address_space()) < MIN_ADDRESS_SPACE:
        end(program, f"memory is limited to {limit / 2**30:.1f} GiB (ulimit -v); JAX needs 2 GiB or more", 2)


def address_space() -> float:
    """The limit of this process's address space, bytes; infinite without one."""
    try:
        import resource
    except ImportError:  # not a Unix
        return float("inf")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def taken() -> list[int]:
    """The signals to attend to. A hang-up that the caller has this process ignore (`nohup`) stays ignored."""
    ignored = signal.SIG_IGN
    return [number for number in SIGNALS if number.name != "SIGHUP" or signal.getsignal(number) is not ignored]


class Listener:
    """Hears signals in a thread of its own, since Python's handlers wait while the main thread is in a compiler or a device.

    Attributes:
      program: the command.
      hear: what is done about a signal, called with its number in that thread; at first the process ends at once, with 128
        plus the number as exit code. Nothing is raised in the main thread, where a library's callback may swallow it.
      unwinds: whether KeyboardInterrupt, with the number, is raised in the main thread instead.
    """

    def __init__(self, program: str):
        self.program = program
        self.hear: Callable[[int], object] = self.leave
        self.unwinds = False

    def listen(self) -> None:
        """Takes the signals of this process."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        for number in taken():
            signal.signal(number, self)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._attend, args=(reader,), daemon=True).start()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.unwinds:
            self.hear = lambda number: None  # on its way out; the thread may learn of the signal after the block's end
            raise KeyboardInterrupt(number)

    def _attend(self, reader: int) -> None:
        while True:
            number = os.read(reader, 1)[0]
            if number in SIGNALS and not self.unwinds:
                self.hear(number)

    def leave(self, number: int) -> NoReturn:
        """Ends the process in one line."""
        end(self.program, interrupted(number), 128 + number)

    def settle(self, code: int) -> None:
        """From here on a signal ends the process with this exit code, which is decided."""
        self.unwinds = False
        self.hear = lambda number: os._exit(code)


def interrupted(number: int) -> str:
    """A signal that ended a command, in words."""
    return "interrupted" if number == signal.SIGINT else f"interrupted by {signal.Signals(number).name}"


def listener() -> Listener | None:
    """That of this process; None unless it is a command."""
    handler = signal.getsignal(signal.SIGTERM)
    return handler if isinstance(handler, Listener) else None


@contextlib.contextmanager
def unwinding() -> Generator[None]:
    """A signal within the block raises KeyboardInterrupt, so that what was begun is cleaned up."""
    present = listener()
    if present is not None:
        present.unwinds = True
    try:
        yield
    finally:
        if present is not None:
            present.unwinds = False


def end(program: str, text: str, code: int) -> NoReturn:
    """Ends the process at once, without the ordinary way out, which may wait for other threads."""
    # Nothing is flushed: the main thread may hold the stream, waiting for a reader that does not read.
    with contextlib.suppress(OSError):
        os.write(2, f"{program}: {text}\n".encode(errors="backslashreplace"))
    os._exit(code)


def _imports_failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Says in one line that a package cannot be loaded; anything else as Python does."""
    if not isinstance(error, ImportError | MemoryError | OSError):
        return sys.__excepthook__(kind, error, trace)
    text = " ".join(str(error).split())[:300] or kind.__name__
    present = listener()
    advice = "is there too little memory (ulimit -v), or is the installation broken?"
    return end(present.program if present else "wrn_jax", f"a package cannot be loaded: {text}; {advice}", 2)


# Streams


class _Patient(io.FileIO):
    """A stream that never fails: what nobody reads, or no disk takes, is lost, and the first reason is kept in `lost`."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            self.lost = self.lost or error
            return len(data)


def keep_standard_streams() -> None:
    """Has standard output and error never raise: neither when nobody reads them nor by a character they cannot encode."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # else the next file opened would be standard error
        pass
    os.close(number)
    codecs.register_error("wrn_jax.ascii", _in_ascii)
    for name, file in (("stdout", 1), ("stderr", 2)):
        stream: Any = getattr(sys, name)
        encoding = getattr(stream, "encoding", None) or "utf-8"
        errors = "backslashreplace" if name == "stderr" else "wrn_jax.ascii"
        buffer = io.BufferedWriter(_Patient(file, "w", closefd=False))
        by_line = name == "stderr" or os.isatty(file) or getattr(stream, "write_through", False)
        setattr(sys, name, io.TextIOWrapper(buffer, encoding, errors, line_buffering=by_line))


def lost_output() -> str:
    """Why standard output is not complete; empty if it is, or if its reader went away, as `head` does."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = raw.lost if isinstance(raw, _Patient) else None
    return "" if error is None or error.errno == errno.EPIPE else error.strerror or str(error)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Bars and arrows by their nearest ASCII characters, other characters escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_BARS)
    return text.encode("ascii", "backslashreplace").decode(), error.end
