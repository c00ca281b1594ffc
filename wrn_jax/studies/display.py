"""What a study shows while it runs: a line for the whole, and one for each run at work."""

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from wrn_jax.report.runs import Run
from wrn_jax.runtime import console
from wrn_jax.studies.runs import Member, last_line
from wrn_jax.training.records import SPLITS, EpochRow

INTERVAL = 60.0
"""Seconds between lines where there is no terminal."""


class Display:
    """Live lines at the bottom of a terminal; elsewhere they are printed every `INTERVAL` seconds, in one line."""

    def __init__(self, count: int):
        self._shown_at = time.monotonic()
        options: dict[str, Any] = {"bar_format": "{desc}", "file": sys.stderr, "leave": False}
        self._lines = [tqdm(position=place, **options) for place in range(count)] if console.is_terminal() else []

    def show(self, texts: Sequence[str]) -> None:
        """Shows these lines in place of those before."""
        if not self._lines:
            if time.monotonic() - self._shown_at >= INTERVAL:
                self._shown_at = time.monotonic()
                console.say(" | ".join(texts))
            return
        width = shutil.get_terminal_size().columns - 1
        for line, text in zip(self._lines, [*texts, *[""] * len(self._lines)], strict=False):
            line.set_description_str(text[:width])

    def close(self) -> None:
        """Removes the lines."""
        for line in reversed(self._lines):
            line.close()


def at_work(member: Member, rows: Sequence[EpochRow], epochs: int, what: str) -> str:
    """A run at work, in a line: its epoch and accuracy, and the last that it said."""
    if what != "train":
        return f"{member.name}: is evaluated"
    said = last_line(member.log)
    if not rows:
        return f"{member.name}: {said or 'starts'}"
    judge = "test" if rows[-1].valid_accuracy is None else "valid"
    accuracy = f"{SPLITS[judge]} accuracy {rows[-1].accuracy(judge):.2%}"
    step = f"; {said}" if said.startswith("epoch") and "images/s" not in said else ""
    return f"{member.name}: epoch {rows[-1].epoch}/{epochs}, {accuracy}{step}"


def seconds_left(
    rows: Mapping[str, Sequence[EpochRow]], todo: Sequence[tuple[str, str, int]], operations: Mapping[str, float], jobs: int
) -> float | None:
    """What is left of a study, in seconds; None as long as no epoch has been timed.

    Args:
      rows: of the runs so far, by recipe.
      todo: (run, recipe, epochs that are left) of the runs that are not trained yet.
      operations: of an epoch, by recipe.
      jobs: how many runs train at a time.
    """
    timed = {
        recipe: [row.seconds / operations[recipe] for row in those if row.seconds is not None] for recipe, those in rows.items()
    }
    every = [value for values in timed.values() for value in values]
    if not every:
        return None
    mean = {recipe: sum(own) / len(own) for recipe, values in timed.items() if (own := values or every)}
    lengths = [epochs * operations[recipe] * mean[recipe] for _, recipe, epochs in todo]
    return max([sum(lengths) / jobs, *lengths])


def finished_line(member: Member, run: Run, done: int, count: int) -> str:
    """A run that is finished and evaluated, in a line."""
    took = console.format_duration(sum(row.seconds or 0.0 for row in run.rows))
    return f"{member.name}: finished, {run.last.epoch} epochs in {took}; {done} of {count} runs are done"
