"""Shows recipes without training, and says what is likely wrong with them.

    python -m wrn_jax.plan configs/session04.py
    python -m wrn_jax.plan configs/session02.py configs/session04.py

Of two recipes, A and B, it shows first where they differ.
"""

from wrn_jax.runtime import entry

if __name__ == "__main__":
    entry.begin("plan")

import csv
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from wrn_jax import command
from wrn_jax.config import Config, apply_arguments, checks, load_file
from wrn_jax.config.agreement import changed_keys
from wrn_jax.config.timeline import Timeline
from wrn_jax.data import own_classes
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path
from wrn_jax.training.records import EpochRow, read_run
from wrn_jax.training.workdir import saved_config


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the plan of a run, or of two side by side, and writes what was asked for.

    Raises:
      UserError: a mistake in the arguments or a configuration, or a file that cannot be written.
      SystemExit: with code 1, if --strict was given and there are findings that are not silenced.
    """
    parser = command.parser("plan", "Shows what a recipe will do, or two side by side, without training.", with_keys=True)
    parser.epilog = f"{checks.explain()}\n\n{parser.epilog}"
    parser.add_argument("files", nargs="*", type=user_path, metavar="FILE", help="one or two configurations, as --config")
    parser.add_argument("--csv", type=user_path, metavar="FILE", help="write one row per epoch")
    parser.add_argument("--plot", type=user_path, metavar="FILE", help="draw the moving values as PNG")
    parser.add_argument("--run", type=user_path, metavar="DIR", help="a work directory, whose accuracies --plot draws below")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if there is a finding that is not silenced")
    options, overrides = command.parse(parser, argv)
    files = [*([options.config] if options.config is not None else []), *options.files]
    if not files:
        raise UserError(command.NO_CONFIG)
    if len(files) > 2:
        raise UserError(f"{len(files)} configuration files: expected one, or two to be shown side by side")
    if options.run is not None and (options.plot is None or len(files) > 1):
        raise UserError("--run draws below the --plot of one configuration file")
    written = [load_file(path) for path in files]
    configs = [own_classes.described(apply_arguments(config, overrides)) for config in written]
    from wrn_jax.planning.description import describe, labels, make_plan  # here, since mistakes above need not wait for it
    from wrn_jax.planning.difference import describe_two

    plans = [make_plan(*each) for each in zip(files, written, configs, strict=True)]
    rows = [] if options.run is None else finished_epochs(options.run, plans[0].config)
    if len(plans) == 2:
        between = checks.batch_without_rate(plans[1].config, plans[0].config, "A has")
        plans[1] = dataclasses.replace(plans[1], findings=[*plans[1].findings, *between])
    print("\n".join(describe(plans[0]) if len(plans) == 1 else describe_two(*plans)))
    try:
        if options.csv is not None:
            write_csv(options.csv, [plan.timeline for plan in plans])
            print(f"wrote {options.csv}")
        if options.plot is not None:
            from wrn_jax.planning.plot import draw_recipe

            drawn = {label: plan.timeline for label, plan in zip(labels(plans), plans, strict=True)}
            draw_recipe(options.plot, drawn, str(files[0]) if len(plans) == 1 else "", rows)
            print(f"wrote {options.plot}")
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from None
    if options.strict and any(checks.loud(plan.findings, plan.config.silence) for plan in plans):
        sys.exit(1)


def finished_epochs(workdir: Path, planned: Config) -> list[EpochRow]:
    """The rows of a run of the recipe that is `planned`. Raises UserError if there are none, or if they are of another."""
    config = saved_config(workdir)
    if any(key.startswith(("recipe.", "optimizer.", "augmentation_levels.")) for key in changed_keys(config, planned)):
        raise UserError(f"--run {workdir}: is of another recipe")
    rows = read_run(workdir / "metrics.jsonl", config, Timeline.of(config))
    if not rows:
        raise UserError(f"--run {workdir}: has no finished epoch")
    return rows


def write_csv(path: Path, timelines: Sequence[Timeline]) -> None:
    """Writes the rows of `Timeline.table`, one per epoch; of two recipes both, with _a and _b after the columns' names."""
    tables = [timeline.table() for timeline in timelines]
    if len(tables) == 2:
        columns = [column for column in tables[0][0] if column != "epoch"]
        names = ["epoch", *(f"{column}_{letter}" for column in columns for letter in "ab")]
        rows = [{"epoch": epoch + 1} for epoch in range(max(map(len, tables)))]
        for letter, values_of_epochs in zip("ab", tables, strict=True):
            for row, values in zip(rows, values_of_epochs, strict=False):
                row |= {f"{column}_{letter}": values[column] for column in columns}
    else:
        names, rows = list(tables[0][0]), tables[0]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a plan may run beside a training, whose device it leaves alone
    sys.exit(command.run(main, "plan"))
