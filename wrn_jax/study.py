"""Trains, evaluates and compares recipes over several seeds: `python -m wrn_jax.study RECIPE... --seeds 3 --out DIR`.

Started again it goes on: what is finished is skipped, what was interrupted is resumed.
"""

from wrn_jax.runtime import entry

if __name__ == "__main__":
    entry.begin("study")

import argparse
import sys
from collections.abc import Sequence

import jax

from wrn_jax import command
from wrn_jax.report.other_runs import COLUMNS_HELP, UNIT_HELP, UNITS
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = command.parser("study", "Trains recipes over several seeds, evaluates their runs, and compares them.")
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="configuration files or names of recipes; of a study that "
                        "is there already they may be left out")  # fmt: skip
    parser.add_argument("--out", type=user_path, required=True, metavar="DIR", help="where runs and report go")
    parser.add_argument("--seeds", type=command.whole_number, metavar="N", help="runs of each recipe (default: 3)")
    parser.add_argument("--vary", action="append", default=[], metavar="KEY=VALUE,...", help="make variants of the recipe, one "
                        "for each value; of several keys one for each combination; chosen from on the hold-out")  # fmt: skip
    parser.add_argument("--corruptions", action=argparse.BooleanOptionalAction, help="evaluate on corrupted images too "
                        "(default: as the study did before)")  # fmt: skip
    parser.add_argument(
        "--share", action=argparse.BooleanOptionalAction, default=True,
        help="train what recipes have in common once for each seed, to the same bits (default: yes)",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=jobs, metavar="N", default="auto", help="runs at a time (default: auto, one for each GPU or one)"
    )
    parser.add_argument("--engine", choices=("local", "ray", "slurm"), default="local", help="what runs them: this machine "
                        "(default), a cluster of Ray (needs ray), or Slurm (needs submitit)")  # fmt: skip
    parser.add_argument("--engine-options", nargs="+", default=[], metavar="KEY=VALUE", help="what each run asks for: of Ray "
                        "options of a task (num_gpus=1), of Slurm parameters of submitit (slurm_partition=gpu)")  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="say what will run, how long it takes and what it can show; stop"
    )
    parser.add_argument("--detect", type=points, metavar="POINTS", help="the difference that the study is made for: the "
                        "plan says how many seeds it needs, the report with which chance it is shown")  # fmt: skip
    parser.add_argument(
        "--spread", type=points, metavar="POINTS", default=0.3,
        help="the standard deviation over seeds that the plan reckons with (default: 0.3)",
    )  # fmt: skip
    parser.add_argument(
        "--fail-if-worse", metavar="BASE", help="exit with 1 if a recipe is shown to be worse than the one of this name"
    )
    parser.add_argument("--beside", nargs="+", default=[], metavar="PATTERN", help="runs of other programs to compare with: "
                        "those whose path matches, or that a folder holds, are seeds of one recipe")  # fmt: skip
    parser.add_argument("--columns", nargs="+", default=[], metavar="QUANTITY=COLUMN", help=COLUMNS_HELP)
    parser.add_argument("--unit", choices=UNITS, help=UNIT_HELP)
    parser.add_argument("--config.KEY", metavar="VALUE", help="changes one key of all recipes")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the arguments, runs what is missing and writes the report.

    Raises:
      UserError: a mistake in the arguments, or runs that failed.
      Diverged: runs diverged, and none failed otherwise.
      Interrupted: a signal came; the runs are saved.
      SystemExit: with code 1, if --fail-if-worse was given and a recipe is shown to be worse.
    """
    options, overrides = command.parse(make_parser(), argv)
    if options.seeds == 0:
        raise UserError("--seeds 0: should be at least 1")
    if options.engine_options and options.engine == "local":
        raise UserError("--engine-options goes with --engine ray or slurm")
    from wrn_jax.studies import beside, clusters, conduct  # here, since mistakes above need not wait for it
    from wrn_jax.training.workdir import claimed

    asked = (options.out, options.recipes, overrides, options.vary, options.seeds)
    given = {"--detect": options.detect, "--beside": options.beside, "--corruptions": options.corruptions,
             "--fail-if-worse": options.fail_if_worse}  # fmt: skip
    about_test = [name for name, value in given.items() if value]

    def settle():
        design = conduct.settle(*asked, options.detect)
        conduct.check_options(design, about_test)
        design = design.with_corruptions(options.corruptions)
        design = conduct.put_beside(design, options.out, options.beside, options.columns, options.unit)
        return design, beside.find(design, named=bool(options.beside))

    request = conduct.Request(
        jobs=options.jobs,
        share=options.share,
        spread=options.spread,
        base=options.fail_if_worse,
    )
    if options.dry_run:
        design, others = settle()
        return conduct.foresee(design, options.out, request, others, options.engine != "local")
    with claimed(options.out):
        design, others = settle()
        cluster = None if options.engine == "local" else clusters.find(options.engine, options.engine_options, options.out)
        conduct.run(design, options.out, request, others, cluster)


def jobs(text: str) -> int | None:
    """How many runs at a time; None for as many as suit. Raises WrongValue."""
    number = None if text == "auto" else command.whole_number(text)
    if number == 0:
        raise command.WrongValue("0: should be at least 1, or auto")
    return number


def points(text: str) -> float:
    """A positive number of percentage points. Raises WrongValue."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise command.WrongValue(f"{text!r}: should be a number of percentage points, above 0")
    return value


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # the devices are for the runs
    sys.exit(command.run(main, "study"))
