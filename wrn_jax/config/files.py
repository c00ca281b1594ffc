"""Configuration files: ordinary Python that assigns `config`. It is executed, so load only files that you trust."""

import ast
import contextlib
import dataclasses
import os
import runpy
import sys
from pathlib import Path

from pydantic import ValidationError

from wrn_jax.config import recipes
from wrn_jax.config.schema import Config, first_error
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.text import error


def load_file(path: str | Path, relative_to: str | Path | None = None) -> Config:
    """The object `config` that a Python configuration file assigns.

    Args:
      path: the file, or the name of a recipe of the package, such as "session04".
      relative_to: a file whose folder a relative `path` starts from: `__file__` in a configuration built on another.

    Raises:
      UserError: the file is missing, fails, or does not assign a `Config`.

    What it prints goes to standard error: standard output may be read by a program. The working directory stays the caller's,
    whose relative paths would else mean something new.
    """
    name, path = str(path), recipes.find(path) if relative_to is None else Path(relative_to).parent / path
    if not os.path.isfile(path) and name in recipes.names():
        path = recipes.find(name)
    if not os.path.isfile(path):
        raise error(path, f"no such configuration file; recipes that are known by name: {', '.join(recipes.names())}")
    try:
        if repeated := _repeated_key(Path(path).read_bytes()):
            raise error(path, repeated)
        with contextlib.redirect_stdout(sys.stderr), contextlib.chdir("."):
            config = runpy.run_path(str(path)).get("config")
        if isinstance(config, Config):  # its tables can have been changed since they were checked
            config = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe))
    except UserError:
        raise
    except ValidationError as wrong:
        raise error(path, f"{wrong.title}: {first_error(wrong)}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # what a file raises may be of any kind
        raise error(path, f"{type(failure).__name__}: {str(failure).strip() or 'no message'}") from None
    if not isinstance(config, Config):
        raise error(path, "assigns no 'config = Config(...)'")
    return config


def _repeated_key(source: bytes) -> str:
    """Names a key that stands twice in one table of a Python file, of which Python would silently take the last; else empty."""
    for table in ast.walk(ast.parse(source)):
        if isinstance(table, ast.Dict):
            seen = set[str]()
            for key in filter(None, table.keys):
                text = ast.unparse(key)
                if text in seen:
                    return f"line {key.lineno}: the key {text} stands twice in one table"
                seen.add(text)
    return ""
