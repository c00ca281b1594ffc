"""Trains a recipe: `python -m wrn_jax.train --config session04`."""

from wrn_jax.runtime import entry

if __name__ == "__main__":
    entry.begin("train")

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from wrn_jax import command
from wrn_jax import config as configs
from wrn_jax.runtime import allocator, devices
from wrn_jax.runtime.errors import Abandoned, UserError
from wrn_jax.runtime.files import reason, user_path
from wrn_jax.training import loop
from wrn_jax.training.records import EpochRow
from wrn_jax.training.workdir import default_workdir, holds_run, saved_config


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the arguments, trains, and says how it ended. Raises what `runtime.errors` has."""
    parser = command.parser("train", "Trains a WideResNet by a recipe.", with_keys=True)
    parser.add_argument("--workdir", type=user_path, metavar="DIR", help="where results go (default: runs/NAME-TIME-ID)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="yes",
        choices=("yes", "auto"),
        help="continue the run in --workdir (--config may be left out); auto: if there is one, else start it",
    )
    parser.add_argument("--on-nonfinite", choices=("stop", "rollback"), help="short for --config.on_nonfinite")
    parser.add_argument("--deterministic", action="store_true", help="the same bits on the same GPU, at some cost of speed")
    parser.add_argument("--distributed", action="store_true", help="join the other processes of a multi-host run first")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="process 0, where --distributed cannot find it out")
    parser.add_argument("--processes", type=command.whole_number, metavar="N", help="number of processes, likewise")
    parser.add_argument("--process", type=command.whole_number, metavar="I", help="which one this is, from 0, likewise")
    options, overrides = command.parse(parser, argv)
    if options.resume and options.workdir is None:
        raise UserError("--resume needs --workdir, the directory of the run to continue")
    if options.distributed and options.workdir is None:
        raise UserError("--distributed needs --workdir, one directory that all processes share")
    resume = options.resume == "yes" or (options.resume == "auto" and holds_run(options.workdir))
    if options.config is None and resume:
        config = configs.apply_arguments(saved_config(options.workdir), overrides)
    else:
        config = command.read_config(options.config, overrides)
    workdir = options.workdir or default_workdir(Path(str(options.config)).stem)
    if options.on_nonfinite:
        config = config.override({"on_nonfinite": options.on_nonfinite})
    if options.deterministic:
        devices.be_deterministic()
    if options.distributed:
        devices.start_processes(options.coordinator, options.processes, options.process)
    try:
        summary = loop.train(config, workdir, resume)
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise Abandoned(f"another process of this run is gone ({reason(error)}); start all again with --resume=auto") from None
    if jax.process_index() == 0:
        for line in closing_lines(summary):
            print(line)


def closing_lines(summary: loop.Summary) -> list[str]:
    """How a run ended: accuracies, where things lie, how to evaluate."""
    best, last = summary.best, summary.last
    chosen = "on the hold-out" if summary.judge == "valid" else "on the test set, which flatters it"
    return [
        "",
        f"best   epoch {best.epoch}: {_accuracies(best)} (chosen {chosen})",
        f"final  epoch {last.epoch}: {_accuracies(last)}",
        f"everything is in {summary.workdir}: metrics.jsonl, curves.png, config.json, header.jsonl, checkpoints/, tensorboard/",
        f"evaluate it: {_python()} -m wrn_jax.evaluate --workdir {shlex.quote(str(summary.workdir))} --checkpoint best",
    ]


def _python() -> str:
    """What to call this Python in the user's shell: the environment may be active there, or only in the script."""
    return "python" if os.environ.get("VIRTUAL_ENV") == sys.prefix else shlex.quote(os.path.relpath(sys.executable))


def _accuracies(row: EpochRow) -> str:
    valid = "" if row.valid_accuracy is None else f"validation {row.valid_accuracy:.2%}, "
    return f"{valid}test {row.test_accuracy:.2%}"


if __name__ == "__main__":
    allocator.keep_freed_memory()
    sys.exit(command.run(main, "train"))
