"""What the commands share: reading the configuration, and errors in one line."""

import argparse
import difflib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import jax

from wrn_jax import config as configs
from wrn_jax.config import recipes
from wrn_jax.data import own_classes
from wrn_jax.runtime import console, devices, entry
from wrn_jax.runtime.errors import Abandoned, Diverged, Interrupted, UserError
from wrn_jax.runtime.files import cache_folder, user_path
from wrn_jax.runtime.text import printable


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if unknown := re.match("unrecognized arguments: (--[^ =]+)", message):
            options = [option for action in self._actions for option in action.option_strings]
            message += "".join(f"; did you mean {near}?" for near in difflib.get_close_matches(unknown[1], options, n=1))
        raise UserError(" ".join(message.split()))


KEEP_RESULTS = ("train", "evaluate", "compare", "study", "export", "prepare", "publish")
"""The commands whose results are files; what the others print is the result."""

NO_CONFIG = "--config FILE is missing, for example --config session04; --help shows all keys"


class WrongValue(UserError, argparse.ArgumentTypeError):
    """A value that an option does not take; where it is the `type` of an option that raises it, argparse names the option."""


def whole_number(text: str) -> int:
    """A whole number in decimal digits, from 0. Raises WrongValue: Python's `int` takes other scripts' digits as well."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise WrongValue(f"{printable(repr(text))}: should be a whole number")
    return int(text)


def parser(program: str, description: str, with_keys: bool = False) -> argparse.ArgumentParser:
    """An argument parser whose errors are `UserError`s; `with_keys` adds `--config` and lists the keys in the help."""
    parser = _OneLineParser(
        prog=f"python -m wrn_jax.{program}",
        description=description,
        epilog=configs.help_text() if with_keys else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if with_keys:
        accepted = f"configuration file (Python; it is executed), or a recipe's name: {', '.join(recipes.names())}"
        parser.add_argument("--config", type=user_path, metavar="FILE", help=accepted)
        parser.add_argument("--config.KEY", metavar="VALUE", help="changes one key, for example --config.model.depth=16")
    return parser


def add_network(parser: argparse.ArgumentParser) -> None:
    """The option --network of commands that read a checkpoint."""
    parser.add_argument(
        "--network",
        choices=("average", "raw"),
        help="of a run with a weight average: that, or the network itself (default: the average where it has begun)",
    )


def check_of_run(options: argparse.Namespace) -> None:
    """Raises UserError for options that choose among the checkpoints and networks of a run, where no run is given."""
    for name in ("network", "checkpoint"):
        if getattr(options, name) and not options.workdir:
            raise UserError(f"--{name} goes with --workdir: published weights and files hold one network")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the arguments of the form `--config.KEY`, in their order."""
    options: list[str] = []
    overrides: list[str] = []
    rest = list(sys.argv[1:] if argv is None else argv)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--config."):
            options.append(argument)
            continue
        overrides.append(argument)
        if "=" not in argument and rest:
            overrides.append(rest.pop(0))
    return parser.parse_args(options), overrides


def read_config(path_or_name: Path | None, overrides: Sequence[str]) -> configs.Config:
    """The configuration that `--config` names, changed by `--config.KEY=VALUE`, and its data described. Raises UserError."""
    if path_or_name is None:
        raise UserError(NO_CONFIG)
    return own_classes.read_config(path_or_name, overrides)


def keep_caches() -> None:
    """Has JAX keep compiled programs, and matplotlib its list of fonts, in the package's cache folder.

    JAX_COMPILATION_CACHE_DIR and MPLCONFIGDIR name other places, JAX_ENABLE_COMPILATION_CACHE=false turns the former off.
    """
    folder = cache_folder()
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue] (made at run time)
        jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # the small programs add up to seconds


def run(main: Callable[[], object], program: str) -> int:
    """Calls `main` and returns the exit code.

    0 done, 2 a user's mistake, 3 diverged, 4 another process is gone, 75 interrupted and saved, 128 and the signal's number
    interrupted. Where standard output is the result, an output that could not be written is a mistake as well.
    """
    keep_caches()
    # Orbax tells through absl, at length, of what a killed run left behind and of saves that fail; the loop says it shorter.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    sys.excepthook = sys.__excepthook__  # the imports are done
    code = _run(main, program)
    if (lost := entry.lost_output()) and code == 0:
        is_kept = program in KEEP_RESULTS
        code = _say(program, f"standard output is not complete: {lost}", 0 if is_kept else 2)
    if code == 2 and jax.distributed.is_initialized():
        sys.stdout.flush()
        os._exit(code)  # the ordinary way out would wait for the other processes, which may have ended before
    if listener := entry.listener():
        sys.stdout.flush()
        listener.settle(code)
    return code


def _run(main: Callable[[], object], program: str) -> int:
    try:
        main()
    except (UserError, Diverged, Interrupted) as error:
        return _say(program, error, error.code)
    except Abandoned as error:
        code = _say(program, error, error.code)
        os._exit(code)  # the ordinary way out would wait for the process that is gone
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        return _say(program, entry.interrupted(number), 128 + number)
    except (MemoryError, RuntimeError, AssertionError) as error:
        text = devices.explain(error)
        if text is None:
            raise
        return _say(program, text, UserError.code)
    return 0


def _say(program: str, text: object, code: int) -> int:
    console.tell(f"{program}: {printable(str(text))}")
    return code
