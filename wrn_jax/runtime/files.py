"""Files and folders: written whole or not at all, and where caches go."""

import json
import os
import re
import tempfile
import urllib.error
from pathlib import Path
from typing import Any

from wrn_jax.runtime.errors import UserError


def user_path(text: str | os.PathLike) -> Path:
    """The path that a user names: `~` is the home folder, all else is as the operating system takes it.

    Raises:
      UserError: it is empty or remote, or holds what no library here can write (a null character, or bytes that are not text).
    """
    text = os.fspath(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise UserError(f"{text}: is a remote path; name a local folder, such as one where the bucket is mounted (gcsfuse)")
    if not text or "\0" in text:
        raise UserError(f"{text!r}: is no path")
    try:
        text.encode()
        return Path(text).expanduser()
    except UnicodeEncodeError:
        raise UserError(
            f"{text!a}: cannot be read as text in this locale; set PYTHONUTF8=1 or LANG=C.UTF-8, or choose another path"
        ) from None
    except RuntimeError:
        raise UserError(f"{text}: there is no such user") from None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces a file so that a reader, or a crash, never meets half of it. Raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def make_directory(directory: Path) -> None:
    """Makes a directory, and finds out whether it can be written to. Raises UserError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UserError(f"{directory}: cannot be written to: {error.strerror}") from None


def read_jsonl(path: Path) -> list[Any]:
    """What the lines of a JSON-lines file hold; none if there is no file. A last line that a crash left unfinished is ignored.

    Raises:
      UserError: it cannot be read, or another line is not JSON.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'is not text'}") from None
    values = []
    for number, line in enumerate(lines, 1):
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            if number < len(lines):
                raise UserError(f"{path}: line {number} is not JSON") from None
    return values


def check_format(version: Any, known: int, source: object) -> None:
    """Raises UserError for what a version of the package wrote that has another number for its format."""
    if version != known:
        raise UserError(f"{source}: is of format {version}; this version reads {known}")


def cache_folder(cache: str | os.PathLike | None = None) -> Path:
    """The cache folder as an absolute path: `cache`, else the package's folder in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return user_path(cache or f"{base}/wrn_jax").absolute()


def reason(error: BaseException, limit: int = 200) -> str:
    """What went wrong, without line breaks and in at most `limit` characters, to stand in a message."""
    # A URLError shows what it wraps in angle brackets.
    cause = error.reason if type(error) is urllib.error.URLError else error
    text = " ".join((getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
