"""Trains a recipe: `python -m wrn_jax.train --config session04`."""

from wrn_jax.runtime import allocator, entry

if __name__ == "__main__":
    allocator.restart("wrn_jax.train")
    entry.begin("train")

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from wrn_jax import command
from wrn_jax import config as configs
from wrn_jax.config import Config
from wrn_jax.config.extension import extended
from wrn_jax.config.timeline import Timeline
from wrn_jax.runtime import devices, hub
from wrn_jax.runtime.errors import Abandoned, Diverged, Interrupted, UserError
from wrn_jax.runtime.files import reason, user_path
from wrn_jax.training.messages import of_average, to_go_on
from wrn_jax.training.records import EpochRow, Origin, read_run
from wrn_jax.training.workdir import default_workdir, holds_progress, holds_run, saved_config, saved_origin

if TYPE_CHECKING:
    from wrn_jax.training.loop import Summary


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = command.parser("train", f"Trains a WideResNet by a recipe.\n{allocator.HELP}", with_keys=True)
    parser.add_argument("--workdir", type=user_path, metavar="DIR", help="where results go (default: runs/NAME-TIME-ID)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="yes",
        choices=("yes", "auto"),
        help="continue the run in --workdir (--config may be left out); auto: if there is one, else start it",
    )
    parser.add_argument(
        "--stop-after",
        type=command.whole_number,
        metavar="EPOCH",
        help="end after this epoch with exit code 0; --resume goes on as if nothing had been",
    )
    parser.add_argument(
        "--branch-from",
        type=user_path,
        metavar="RUN",
        help="start at a checkpoint of another run (its directory), with the recipe of --config (or its own) from there on",
    )
    parser.add_argument(
        "--branches-after",
        type=epochs,
        metavar="EPOCH,...",
        default=[],
        help="keep what runs that branch off after these epochs need: the checkpoint, and the best until then",
    )
    parser.add_argument(
        "--init-from",
        type=user_path,
        metavar="RUN|FILE|hub:USER/NAME",
        help="start with weights of a run, a file (.safetensors, .pth) or the Hub; another last layer for other classes",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="WHICH",
        help="of that run: best, last, or an epoch that was kept (default: last to branch from, best for weights)",
    )
    command.add_network(parser)
    parser.add_argument(
        "--extend",
        type=command.whole_number,
        metavar="EPOCHS",
        help="continue the finished run in --workdir by so many epochs; no phase moves, and each value goes on as its last "
        "phase does (constants, lines and cosines hold their end, restarts go on), unless --config.KEY says otherwise",
    )
    parser.add_argument("--on-nonfinite", choices=("stop", "rollback"), help="short for --config.on_nonfinite")
    parser.add_argument("--deterministic", action="store_true", help="the same bits on the same GPU, at some cost of speed")
    parser.add_argument("--distributed", action="store_true", help="join the other processes of a multi-host run first")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="process 0, where --distributed cannot find it out")
    parser.add_argument("--processes", type=command.whole_number, metavar="N", help="number of processes, likewise")
    parser.add_argument("--process", type=command.whole_number, metavar="I", help="which one this is, from 0, likewise")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the arguments, trains, and says how it ended. Raises what `runtime.errors` has."""
    options, overrides = command.parse(make_parser(), argv)
    if options.resume and options.workdir is None:
        raise UserError("--resume needs --workdir, the directory of the run to continue")
    if options.distributed and options.workdir is None:
        raise UserError("--distributed needs --workdir, one directory that all processes share")
    check_beginning(options)
    resume = goes_on(options)
    if resume:
        check_same_beginning(options)
    origin = None if resume else origin_of(options)
    if options.extend:
        config, resume = configs.apply_arguments(extended_config(options.workdir, options.extend), overrides), True
    elif options.config is None and (resume or options.branch_from):
        config = configs.apply_arguments(saved_config(options.workdir if resume else options.branch_from), overrides)
    else:
        config = command.read_config(options.config, overrides)
    workdir = options.workdir or default_workdir(Path(str(options.config or options.branch_from)).stem)
    if options.on_nonfinite:
        config = config.override({"on_nonfinite": options.on_nonfinite})
    if options.deterministic:
        devices.be_deterministic()
    if options.distributed:
        devices.start_processes(options.coordinator, options.processes, options.process)
    from wrn_jax.training import loop, setup  # here, since mistakes above need not wait for it

    if not options.distributed:
        setup.divide_cpu(config, workdir if resume else options.branch_from)

    try:
        summary = loop.train(config, workdir, resume, options.stop_after, origin, branches=options.branches_after)
    except (Diverged, Interrupted):  # of all processes at once
        raise
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        text = f"another process of this run is gone ({reason(error)}); start all again with --resume=auto"
        devices.end_all(text, Abandoned.code)
        raise Abandoned(text) from None
    except UserError as error:
        devices.end_all(str(error), UserError.code)
        raise
    except Exception as error:
        devices.end_all(f"another process of this run failed ({type(error).__name__}: {reason(error)})", Abandoned.code)
        raise
    if jax.process_index() == 0:
        for line in closing_lines(summary):
            print(line)


def epochs(text: str) -> list[int]:
    """Epochs, separated by commas. Raises UserError."""
    return [command.whole_number(number) for number in text.split(",")]


def check_beginning(options: argparse.Namespace) -> None:
    """Raises UserError for options of where a run begins that do not go together."""
    given = {"--branch-from": options.branch_from, "--init-from": options.init_from, "--extend": options.extend}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise UserError(f"{names[0]} and {names[1]}: choose one")
    if names and (options.resume == "yes" or (options.resume and options.extend)):
        raise UserError(f"{names[0]} and --resume: once the run is there, --resume alone goes on with it")
    if options.checkpoint is not None and not (options.branch_from or options.init_from):
        raise UserError("--checkpoint: says where to begin, with --branch-from or --init-from")
    for name in ("coordinator", "processes", "process"):
        if getattr(options, name) is not None and not options.distributed:
            raise UserError(f"--{name}: says where to meet the other processes of the run, with --distributed")
    if options.network is not None and not options.init_from:
        raise UserError("--network: says which weights to begin with, with --init-from")
    if options.extend is not None and (not options.extend or options.workdir is None or options.config is not None):
        raise UserError("--extend: needs --workdir, the finished run, at least 1 epoch, and no --config (--config.KEY may be)")


def goes_on(options: argparse.Namespace) -> bool:
    """Whether the options continue the run in --workdir.

    A start that came to nothing is continued by --resume=auto only where the options do not say how to start.
    """
    if options.resume != "auto":
        return options.resume == "yes"
    can_start = options.config is not None or options.branch_from is not None
    return holds_run(options.workdir) and (holds_progress(options.workdir) or not can_start)


def check_same_beginning(options: argparse.Namespace) -> None:
    """Raises UserError where the options have a run begin elsewhere than the one that they continue did."""
    kind, source = ("branch", options.branch_from) if options.branch_from else ("weights", options.init_from)
    if source is None:
        return
    began = saved_origin(options.workdir)
    if began is None or began.kind != kind or not is_source(Path(began.source), source):
        option = "--branch-from" if kind == "branch" else "--init-from"
        how = began.describe() if began else "began with random weights"
        raise UserError(
            f"{option} {source}: the run in {options.workdir} {how}; leave {option} out, or choose another --workdir"
        )


def is_source(path: Path, given: Path) -> bool:
    """Whether what an option names, a path or a repository of the Hub, is where this path lies."""
    name = str(given)
    if name.startswith(hub.PREFIX):
        return hub.is_of(path, name.removeprefix(hub.PREFIX))
    return os.path.realpath(path) == os.path.realpath(given)


def origin_of(options: argparse.Namespace) -> Origin | None:
    """Where the options have the run begin."""
    if options.branch_from is not None:
        return Origin(kind="branch", source=str(options.branch_from.absolute()), checkpoint=options.checkpoint or "last")
    if options.init_from is not None:
        name = str(options.init_from)
        path = hub.fetch(name.removeprefix(hub.PREFIX)) if name.startswith(hub.PREFIX) else options.init_from
        if options.checkpoint and path.is_file():
            raise UserError(f"--checkpoint {options.checkpoint}: {path} is a file, which holds one network")
        which = options.checkpoint or "best"
        return Origin(kind="weights", source=str(path.absolute()), checkpoint=which, network=options.network)
    return None


def extended_config(workdir: Path, more: int) -> Config:
    """The configuration of the run there with so many epochs more. Raises UserError unless it is finished."""
    config = saved_config(workdir)
    timeline = Timeline.of(config)
    done = len(read_run(workdir / "metrics.jsonl", config, timeline))
    if done < timeline.epochs:
        raise UserError(
            f"{workdir}: is at epoch {done} of {timeline.epochs}, and --extend continues a finished run; --resume goes on "
            "(after an early stop with --config.early_stopping_patience=none)"
        )
    return extended(config, more)


def closing_lines(summary: "Summary") -> list[str]:
    """How a run ended: accuracies, where things lie, how to evaluate."""
    best, last = summary.best, summary.last
    where = shlex.quote(str(summary.workdir))
    chosen = "on the hold-out" if summary.judge == "valid" else "on the test set, which flatters it"
    return [
        "",
        f"best   epoch {best.epoch}: {_accuracies(best)} (chosen {chosen})",
        f"{'last ' if summary.epochs_left else 'final'}  epoch {last.epoch}: {_accuracies(last)}",
        *[f"{summary.epochs_left} epochs are left: {_python()} -m wrn_jax.train --resume --workdir {to_go_on(summary.workdir)}"]
        * bool(summary.epochs_left),
        f"everything is in {summary.workdir}: metrics.jsonl, curves.png, config.json, header.jsonl, checkpoints/, tensorboard/",
        f"evaluate it: {_python()} -m wrn_jax.evaluate --workdir {where} --checkpoint best",
    ]


def _python() -> str:
    """What to call this Python in the user's shell: the environment may be active there, or only in the script."""
    return "python" if os.environ.get("VIRTUAL_ENV") == sys.prefix else shlex.quote(os.path.relpath(sys.executable))


def _accuracies(row: EpochRow) -> str:
    valid = "" if row.valid_accuracy is None else f"validation {row.valid_accuracy:.2%}, "
    return f"{valid}test {row.test_accuracy:.2%}{of_average(row)}"


if __name__ == "__main__":
    sys.exit(command.run(main, "train"))
