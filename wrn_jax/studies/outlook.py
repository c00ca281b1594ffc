"""What a study will take: operations, disk, and findings, by recipe."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from wrn_jax.config import checks, from_dict
from wrn_jax.planning import cost
from wrn_jax.planning.description import describe_length
from wrn_jax.report import statistics
from wrn_jax.report.runs import check_same_images, recipe_keys
from wrn_jax.runtime import console, devices
from wrn_jax.runtime.errors import UserError
from wrn_jax.studies import measure, sharing
from wrn_jax.studies.design import Design, Recipe
from wrn_jax.studies.engine import Place
from wrn_jax.studies.power import points
from wrn_jax.studies.sharing import Fork
from wrn_jax.training.setup import Setup, make_setup

MOST_LOOKS = 50
"""Looks that are reckoned with at most: more hardly change the level of the last, and take long to compute."""


@dataclasses.dataclass(frozen=True, eq=False)
class Outlook:
    """A recipe of a study: the set-up of its runs on one device, and what one of them takes.

    Attributes:
      operations: of all updates.
      disk: bytes of its checkpoints, at most.
      fork: where its runs go on from those of another recipe, if they do.
      saved: operations of the updates before.
    """

    recipe: Recipe
    setup: Setup
    operations: int
    disk: int
    fork: Fork | None
    saved: int


def look_ahead(design: Design, share: bool) -> list[Outlook]:
    """The recipes of a study; with `share` what they have in common is to be trained once.

    Raises UserError if two of them are the same, or are tested on different images.
    """
    outlooks: list[Outlook] = []
    keys: dict[str, str] = {}
    configs = [from_dict(recipe.config, recipe.name) for recipe in design.recipes]
    setups = [make_setup(config, devices.make_mesh(1)) for config in configs]
    names = [recipe.name for recipe in design.recipes]
    timelines = [setup.timeline for setup in setups]
    forks = sharing.find(list(zip(names, configs, timelines, strict=True))) if share else {}
    for recipe, setup in zip(design.recipes, setups, strict=True):
        same = keys.setdefault(repr(sorted(recipe_keys(setup.config).items())), recipe.name)
        if same != recipe.name:
            raise UserError(f"{same} and {recipe.name}: are the same recipe; give one of them")
        timeline, fork = setup.timeline, forks.get(recipe.name)
        disk = cost.run_bytes(setup, 2 * len(sharing.branching_epochs(forks, recipe.name)))
        operations = cost.recipe_operations(setup.config, timeline)
        saved = cost.recipe_operations(setup.config, timeline, fork.steps) if fork else 0
        outlooks.append(Outlook(recipe, setup, operations, disk, fork, saved))
    check_same_images([(outlook.recipe.name, outlook.setup.config) for outlook in outlooks])
    return outlooks


def forks_of(outlooks: Sequence[Outlook]) -> dict[str, Fork]:
    """The forks among the recipes, by name."""
    return {outlook.recipe.name: outlook.fork for outlook in outlooks if outlook.fork}


def epoch_operations(outlooks: Sequence[Outlook]) -> dict[str, float]:
    """Operations of an epoch, by recipe."""
    return {outlook.recipe.name: outlook.operations / outlook.setup.timeline.epochs for outlook in outlooks}


def describe(design: Design, outlooks: Sequence[Outlook], done: int, folder: Path) -> list[str]:
    """What will run, in lines."""
    recipes, seeds = len(design.recipes), design.all_seeds
    lines = [f"{folder}: {recipes} recipes x {seeds} seeds = {recipes * seeds} runs, of which {done} are done"]
    if design.grid:
        lines.append(f"a grid; judged by the {design.measure}; chosen is {design.test}")
    first_with: dict[tuple[str, ...], str] = {}
    for outlook in outlooks:
        config, timeline = outlook.setup.config, outlook.setup.timeline
        found = tuple(checks.report(checks.examine(config, timeline), config.silence))
        same = first_with.get(found)
        first_with.setdefault(found, outlook.recipe.name)
        lines += [
            f"{outlook.recipe.name}: {config.model.title}, {config.data.name}, {describe_length(config, timeline)[0]}",
            f"  of a run: {outlook.operations:.3g} operations, {_size(outlook.disk)} of checkpoints at most",
            *shared(outlook),
            *(f"  {line}" for line in found if not same),
            *([f"  findings: those of {same}"] if same else []),
        ]
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    disk = seeds * sum(outlook.disk for outlook in outlooks)
    operations, saved = (seeds * sum(figures) for figures in zip(*[(it.operations, it.saved) for it in outlooks], strict=True))
    if saved:
        part = f"{saved:.3g} of {operations:.3g} operations ({saved / operations:.0%})"
        lines.append(f"what recipes have in common is trained once for each seed, to the same bits: saves {part}")
    return [*lines, f"checkpoints of all runs: {_size(disk)} at most; {_size(shutil.disk_usage(there).free)} are free"]


def shared(outlook: Outlook) -> list[str]:
    """Which recipe it goes on from, and when, in a line; none for a recipe that begins by itself."""
    fork, epochs = outlook.fork, outlook.setup.timeline.epochs
    if fork is None:
        return []
    return [f"  goes on from {fork.trunk} after epoch {fork.epochs} of {epochs}: saves {outlook.saved:.3g} operations a run"]


def times(outlooks: Sequence[Outlook], seeds: int, places: Sequence[Place]) -> list[str]:
    """How long all runs take, one line for each recipe and one for all, by measuring an update in a place. Raises UserError.

    Networks that are alike are measured once; what else differs counts by its operations. Of an evaluation an image costs a
    third of what it costs in training, as in the count of operations.
    """
    lines: list[str] = []
    rates: dict[str, float] = {}
    total = 0.0
    for outlook in outlooks:
        setup, config = outlook.setup, outlook.setup.config
        of_update = outlook.operations / (setup.timeline.steps + setup.timeline.sharpness_aware_steps)
        key = f"{config.model} {config.recipe.batch_size} {config.precision}"
        measured = ""
        if key not in rates:
            seconds, gradients, where = measure.seconds_of_update(outlook.recipe.arguments, places[0])
            rates[key] = seconds / gradients / of_update
            measured = f" (measured: {seconds:.3g} s an update, on {where})"
        epochs = setup.timeline.epochs - (outlook.fork.epochs if outlook.fork else 0)
        images = epochs * (setup.dataset.num_test + config.data.validation_size)
        run = rates[key] * (outlook.operations - outlook.saved + images * of_update / config.recipe.batch_size / 3)
        total += seeds * run
        lines.append(f"{outlook.recipe.name}: {console.format_duration(run)} a run{measured}")
    jobs = len(places)
    each = f", {jobs} runs at a time" if jobs > 1 else ""
    return [
        *lines,
        f"all {seeds * len(outlooks)} runs: {console.format_duration(total / jobs)}{each}, without starting and compiling",
    ]


def resolution(recipes: int, seeds: int, difference: float | None, spread: float) -> list[str]:
    """What so many seeds can show, and how many a difference needs; difference and spread over seeds in points."""
    pairs = recipes * (recipes - 1) // 2
    if not pairs:
        return []
    power = f"{statistics.POWER:.0%} power"
    strictest = f", the strictest of Holm's levels for {pairs} pairs," if pairs > 1 else ""
    lines = []
    if seeds == 1:
        lines.append("with one seed of each recipe no difference can be shown: a run does not tell the recipe from its seed")
    else:
        significance = last_level(seeds, pairs)
        holm = f" (at p < {significance:.2g}{strictest} after the looks before)" if pairs > 1 or seeds > 2 else ""
        alone, paired = (
            points(statistics.detectable(seeds, spread, paired=paired, significance=significance), ".2f")
            for paired in (False, True)
        )
        lines.append(
            f"with a spread of {spread:g} points over the seeds, {seeds} seeds show a difference of {alone} points "
            f"with {power}{holm}; of {paired} by pairs of a seed, if their differences spread as much"
        )
    if difference:
        alone, paired = (seeds_needed(difference, spread, pairs, paired) for paired in (False, True))
        lines.append(
            f"a difference of {difference:g} points needs {alone} seeds of each recipe; {paired} pairs, if their differences "
            "spread as much"
        )
    return lines


def last_level(seeds: int, pairs: int) -> float:
    """The significance of the last of the looks after each complete seed, of the strictest of so many tests."""
    looks = min(seeds, MOST_LOOKS)
    fractions = [number / looks for number in range(2, looks + 1)]
    return statistics.last_level(fractions, statistics.SIGNIFICANCE / pairs)


def seeds_needed(difference: float, spread: float, pairs: int, paired: bool) -> int:
    """As `statistics.seeds_needed`, with the looks that a study of so many seeds takes."""
    level = statistics.SIGNIFICANCE / pairs
    while True:
        seeds = statistics.seeds_needed(difference, spread, paired=paired, significance=level)
        stricter = last_level(seeds, pairs)
        if stricter >= level * (1 - 1e-6):
            return seeds
        level = stricter


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
