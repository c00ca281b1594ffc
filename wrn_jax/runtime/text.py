"""Text in messages: one printable line each, of bounded length, with whose fault it is first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wrn_jax.runtime.errors import UserError


def error(source: str | Path, text: str) -> UserError:
    """A UserError of one printable line, of which the source is whole and the text is cut where it gets long."""
    return UserError(f"{printable(str(source))}: {cut(printable(text), 380)}")


def cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def first_few(texts: Sequence[str], most: int = 3) -> str:
    """The first texts in a line, and how many more there are; empty if there are none."""
    return "; ".join(texts[:most]) + (f"; and {len(texts) - most} more" if len(texts) > most else "")


def printable(text: str) -> str:
    """White space made single spaces, and what cannot be printed escaped, as in `repr`."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def shown(value: Any) -> str:
    """A value in an error message, as in Python, at most 60 characters."""
    try:
        text = printable(repr(value))
    except Exception:  # numbers of thousands of digits, deep lists, objects of others
        text = type(value).__name__
    return cut(text, 60)
