"""Compares runs: `python -m wrn_jax.compare RUN... --out DIR`."""

from wrn_jax.runtime import entry

if __name__ == "__main__":
    entry.begin("compare")

import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from wrn_jax import command
from wrn_jax.report import build, measures, runs, verdict
from wrn_jax.report.render.markdown import to_markdown
from wrn_jax.report.runs import Group
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path, write_atomically


def main(argv: Sequence[str] | None = None) -> None:
    """Reads runs, compares them and writes the report. Raises UserError."""
    parser = command.parser("compare", "Compares recipes by their runs; runs that differ in their seeds alone are one recipe.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's directory, a log as CSV, session02 or session04")
    parser.add_argument("--out", type=user_path, required=True, metavar="DIR", help="where the report goes")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call the recipes, in the order in which they come")
    parser.add_argument("--title", help="the heading of the report")
    options, overrides = command.parse(parser, argv)
    if overrides:
        raise UserError(f"{overrides[0]}: nothing is configured here; see --help")
    groups = runs.group([runs.load(source) for source in options.runs], options.names)
    for line in opening_lines(groups):
        print(line)
    from wrn_jax.report.render import html_page, pictures  # here, since mistakes above need not wait for them

    try:
        options.out.mkdir(parents=True, exist_ok=True)
        document = build.build(groups, options.title)
        write_atomically(options.out / "report.md", to_markdown(document))
        write_atomically(options.out / "report.html", html_page.to_html(document))
        write_atomically(options.out / "comparison.json", json.dumps(collect(groups), indent=2, allow_nan=False) + "\n")
        plots = pictures.save_plots(document, options.out / "plots")
    except OSError as error:
        raise UserError(f"{error.filename or options.out}: cannot be written: {error.strerror}") from None
    print(f"wrote report.md, report.html, comparison.json and {len(plots)} plots to {options.out}")
    print(verdict.reach(groups).sentence.replace("**", ""))


def opening_lines(groups: Sequence[Group]) -> list[str]:
    """What is compared, what is not finished, and what would add to it."""
    lines = []
    for group in groups:
        kind = "published log" if group.log else ", ".join(run.source for run in group.runs)
        lines.append(f"{group.name}: n = {len(group.counted)} ({kind})")
    lines += [*build.unfinished(groups), *build.unlike_lengths(groups)]
    if commands := build.missing_evaluations(groups):
        lines.append("not evaluated yet; for clean gap, calibration and paired tests run, and compare again:")
    return [*lines, *(f"  {command_line}" for command_line in commands)]


def collect(groups: Sequence[Group]) -> dict[str, Any]:
    """All figures of the comparison as plain JSON data; what is not a number is null."""
    reached = verdict.reach(groups)
    pairs = list(itertools.combinations(groups, 2))
    figures = {
        "format": 1,
        "recipes": {group.name: _recipe(group) for group in groups},
        "differences": {which: measures.compare(groups, which) for which in measures.WHICH},
        "images": [measures.compare_images(*pair, which) for which in measures.WHICH for pair in pairs],
        "verdict": {
            "sentence": reached.sentence.replace("**", ""), "refused": reached.refused, "rules": verdict.RULES,
            "aspects": reached.findings, "uses": reached.uses,
        },
    }  # fmt: skip
    return _plain(figures)


def _recipe(group: Group) -> dict[str, Any]:
    epochs = measures.WHICH
    return {
        "runs": [
            {
                "name": run.name, "source": run.source, "seed": run.seed, "finished": run.finished,
                "counted": run.name in [counted.name for counted in group.counted], "rows": [row.to_dict() for row in run.rows],
                "selection": measures.selection(run), "evaluations": [evaluation.figures for evaluation in run.evaluations],
            }
            for run in group.runs
        ],
        "config": None if group.config is None else group.config.to_dict(),
        "best_chosen_on": group.judge,
        "test_accuracy": {which: measures.summary(measures.values(group, which)) for which in epochs},
        "gap_under_augmentation": {which: measures.summary(measures.augmented_gaps(group, which)) for which in epochs},
        "measures": {
            which: {m.name: measures.summary(measures.measured(group, which, m.path)) for m in measures.MEASURES}
            for which in epochs
        },
        "corruptions": {
            which: {name: measures.summary(accuracies) for name, accuracies in measures.corruptions(group, which).items()}
            for which in epochs
        },
        "rate": measures.rate_cycle(group),
        "transitions": [] if group.timeline is None else group.timeline.events(),
    }  # fmt: skip


def _plain(node: Any) -> Any:
    if dataclasses.is_dataclass(node):
        node = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


if __name__ == "__main__":
    sys.exit(command.run(main, "compare"))
