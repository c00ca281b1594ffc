"""A comparison as files: the report, its page, its pictures, and all its figures as JSON."""

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wrn_jax.report import measures, verdict
from wrn_jax.report.render.blocks import Document
from wrn_jax.report.render.markdown import to_markdown
from wrn_jax.report.runs import Group
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import write_atomically


def write(groups: Sequence[Group], document: Document, out: Path) -> int:
    """Writes report.md, report.html, comparison.json and plots/ to `out`; the number of plots. Raises UserError."""
    return write_files(document, collect(groups), out)


def write_files(document: Document, figures: Any, out: Path) -> int:
    """As `write`, with `figures`, plain JSON data, for the content of comparison.json."""
    from wrn_jax.report.render import html_page, pictures  # here, since mistakes before need not wait for them

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "report.md", to_markdown(document))
        write_atomically(out / "report.html", html_page.to_html(document))
        write_atomically(out / "comparison.json", json.dumps(figures, allow_nan=False) + "\n")
        return len(pictures.save_plots(document, out / "plots"))
    except OSError as error:
        raise UserError(f"{error.filename or out}: cannot be written: {error.strerror}") from None


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
    return plain(figures)


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


def plain(node: Any) -> Any:
    """Dataclasses, dictionaries and sequences as JSON has them; what is not a number is None."""
    if node is None or isinstance(node, (str, int)):  # what is most frequent comes first: there are millions
        return node
    if isinstance(node, float):
        return node if math.isfinite(node) else None
    if isinstance(node, dict):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [plain(value) for value in node]
    return {field.name: plain(getattr(node, field.name)) for field in dataclasses.fields(node)}
