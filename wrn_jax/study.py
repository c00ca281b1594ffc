"""Trains, evaluates and compares recipes over several seeds: `python -m wrn_jax.study RECIPE... --seeds 3 --out DIR`.

Started again it goes on: what is finished is skipped, what was interrupted is resumed.
"""

from wrn_jax.runtime import entry

if __name__ == "__main__":
    entry.begin("study")

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import jax

from wrn_jax import command
from wrn_jax.runtime import console
from wrn_jax.runtime.errors import Diverged, UserError
from wrn_jax.runtime.files import reason, user_path
from wrn_jax.studies import design as designs
from wrn_jax.studies import engine, outlook, summary
from wrn_jax.studies.design import Design
from wrn_jax.studies.engine import Place
from wrn_jax.studies.runs import DIVERGED, members
from wrn_jax.training.workdir import claimed

SEEDS = 3
"""Of a study that does not say how many."""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the arguments, runs what is missing and writes the report.

    Raises:
      UserError: a mistake in the arguments, or runs that failed.
      Diverged: runs diverged, and none failed otherwise.
      Interrupted: a signal came; the runs are saved.
    """
    parser = command.parser("study", "Trains recipes over several seeds, evaluates their runs, and compares them.")
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="configuration files or names of recipes; of a study that "
                        "is there already they may be left out")  # fmt: skip
    parser.add_argument("--out", type=user_path, required=True, metavar="DIR", help="where runs and report go")
    parser.add_argument("--seeds", type=command.whole_number, metavar="N", help=f"runs of each recipe (default: {SEEDS})")
    parser.add_argument("--corruptions", action="store_true", help="evaluate on corrupted images too")
    parser.add_argument("--config.KEY", metavar="VALUE", help="changes one key of all recipes")
    options, overrides = command.parse(parser, argv)
    if options.seeds == 0:
        raise UserError("--seeds 0: should be at least 1")
    with claimed(options.out):
        design = settle(options.out, options.recipes, overrides, options.seeds)
        run(design, options.out, options.corruptions)


def settle(folder: Path, files: Sequence[str], overrides: Sequence[str], seeds: int | None) -> Design:
    """The study in `folder`, begun with these recipes if there is none. Raises UserError if it is another one."""
    design = designs.read(folder)
    if overrides and not files:
        raise UserError(f"{overrides[0]}: name the recipes too that it changes")
    if design is None:
        if not files:
            raise UserError(f"{folder}: holds no study to go on with; name the recipes to begin one")
        design = Design(began=designs.now(), recipes=designs.read_recipes(files, overrides), seeds=seeds or SEEDS)
    elif files:
        design.check(designs.read_recipes(files, overrides), folder / designs.FILE)
    if seeds is not None:
        done = engine.look(members(design, folder), corruptions=False).done
        design = design.with_seeds(seeds, len(done))
    return design


def run(design: Design, folder: Path, corruptions: bool) -> None:
    """Runs what is missing and writes the report; see `main`."""
    outlooks, all_members = outlook.look_ahead(design), members(design, folder)
    state = engine.look(all_members, corruptions)
    for line in outlook.describe(design, outlooks, len(state.done), folder):
        print(line)
    design.write(folder)

    def report() -> None:
        try:
            summary.write(design, all_members, state.runs, state.failures, folder)
        except Exception as error:  # whatever it is: the runs are worth more
            console.say(f"the report could not be written ({reason(error)}); going on")

    try:
        engine.execute(all_members, state, [Place()], outlook.epoch_operations(outlooks), corruptions, report)
    finally:
        sentence = summary.write(design, all_members, state.runs, state.failures, folder)
    if sentence:
        print(f"the report: {folder / 'report.md'}, report.html, comparison.json, plots/\n{sentence}")
    if state.failures:
        raise_failures(state, len(all_members), folder)


def raise_failures(state: engine.State, count: int, folder: Path) -> NoReturn:
    """Says in one line which runs failed. Raises Diverged if all of them diverged, else UserError."""
    names = ", ".join(state.failures)
    if all(failure.code == DIVERGED for failure in state.failures.values()):
        raise Diverged(f"{len(state.failures)} of {count} runs diverged and stay as they are: {names}")
    raise UserError(
        f"{len(state.failures)} of {count} runs failed: {names}; see {folder / 'logs'}, and start again to try anew"
    )


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # the devices are for the runs
    sys.exit(command.run(main, "study"))
