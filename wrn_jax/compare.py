"""Compares runs: `python -m wrn_jax.compare RUN... --out DIR`."""

from wrn_jax.runtime import entry

if __name__ == "__main__":
    entry.begin("compare")

import sys
from collections.abc import Sequence

from wrn_jax import command
from wrn_jax.report import build, runs, verdict, writing
from wrn_jax.report.other_runs import COLUMNS_HELP, UNIT_HELP, UNITS, Reading
from wrn_jax.report.runs import Group
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path

RUN_HELP = (
    "a run's directory, a log as CSV, session02 or session04; or what another program wrote: a folder of TensorBoard events, "
    "of MLflow or Lightning, a CSV of Lightning, Keras, timm, W&B or MLflow, lines of JSON"
)
GROUP_HELP = "runs of other programs whose folder or path matches are seeds of one recipe; also a folder of runs"

MOST_TOLD = 8
"""Runs and commands that are listed on the screen."""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads runs, compares them and writes the report. Raises UserError."""
    parser = command.parser("compare", "Compares recipes by their runs; runs that differ in their seeds alone are one recipe.")
    parser.add_argument("runs", nargs="*", metavar="RUN", help=RUN_HELP)
    parser.add_argument("--group", nargs="+", default=[], metavar="PATTERN", help=GROUP_HELP)
    parser.add_argument("--columns", nargs="+", default=[], metavar="QUANTITY=COLUMN", help=COLUMNS_HELP)
    parser.add_argument("--unit", choices=UNITS, help=UNIT_HELP)
    parser.add_argument("--out", type=user_path, required=True, metavar="DIR", help="where the report goes")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call the recipes, in the order in which they come")
    parser.add_argument("--title", help="the heading of the report")
    options, overrides = command.parse(parser, argv)
    if overrides:
        raise UserError(f"{overrides[0]}: nothing is configured here; see --help")
    if not options.runs and not options.group:
        raise UserError("the following arguments are required: RUN or --group; see --help")
    reading = Reading.of(options.columns, options.unit)
    groups = runs.group(runs.load_all(options.runs, options.group, reading), options.names)
    for line in opening_lines(groups):
        print(line)
    from wrn_jax.planning import cost  # here, since mistakes above need not wait for it

    known = [(group.name, group.config, group.timeline) for group in groups]
    operations = {name: cost.recipe_operations(config, plan) for name, config, plan in known if config and plan}
    plots = writing.write(groups, build.build(groups, options.title, operations), options.out)
    print(f"wrote report.md, report.html, comparison.json and {plots} plots to {options.out}")
    print(verdict.reach(groups).sentence.replace("**", ""))


def opening_lines(groups: Sequence[Group]) -> list[str]:
    """What is compared, what is not finished, and what would add to it."""
    lines = []
    for group in groups:
        kind = "published log" if group.log else ", ".join(first_of([run.source for run in group.runs]))
        lines.append(f"{group.name}: n = {len(group.counted)} ({kind})")
    lines += [*build.unfinished(groups), *build.how_read(groups)]
    if commands := build.missing_evaluations(groups):
        lines.append("not evaluated yet; for clean gap, calibration and paired tests run, and compare again:")
    return [*lines, *(f"  {command_line}" for command_line in first_of(commands))]


def first_of(texts: Sequence[str]) -> list[str]:
    """All texts, or of more than `MOST_TOLD` the first ones and how many more there are: the report has all of them."""
    if len(texts) <= MOST_TOLD:
        return [*texts]
    return [*texts[: MOST_TOLD - 1], f"and {len(texts) - MOST_TOLD + 1:,} more, all of them in the report"]


if __name__ == "__main__":
    sys.exit(command.run(main, "compare"))
