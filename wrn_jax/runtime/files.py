"""Files and folders: written whole or not at all, and where caches go."""

import json
import os
import urllib.error
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file so that a reader, or a crash, never meets half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; an unfinished last line, left by a crash, is ignored."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def cache_folder(cache: str | None = None) -> Path:
    """The cache folder as an absolute path: `cache`, else the package's folder in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache or f"{base}/wrn_jax").expanduser().absolute()


def reason(error: BaseException) -> str:
    """What went wrong, without line breaks and short enough to stand in a message."""
    if type(error) is urllib.error.URLError:
        error = error.reason  # what it wraps, without the angle brackets
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]
