"""A study from its design to its report."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from wrn_jax.report import verdict
from wrn_jax.runtime import console
from wrn_jax.runtime.environment import now
from wrn_jax.runtime.errors import Diverged, UserError
from wrn_jax.runtime.files import reason
from wrn_jax.studies import choice, engine, outlook, places, progress, summary
from wrn_jax.studies import design as designs
from wrn_jax.studies import grid as grids
from wrn_jax.studies.beside import Others
from wrn_jax.studies.design import Design, Unit
from wrn_jax.studies.engine import Place, Start
from wrn_jax.studies.progress import Progress
from wrn_jax.studies.runs import DIVERGED, members

SEEDS = 3
"""Of a study that does not say how many."""


@dataclasses.dataclass(frozen=True)
class Request:
    """How a study is to be run, and what is asked of it.

    Attributes:
      jobs: runs at a time; None: as many as there are GPUs, else one.
      share: whether what recipes have in common is trained once.
      spread: the standard deviation over seeds that is reckoned with, in points.
      base: a recipe; if another of the study is shown to be worse, the process ends with exit code 1. None for no question.
    """

    jobs: int | None
    share: bool
    spread: float
    base: str | None


def settle(
    folder: Path,
    files: Sequence[str],
    overrides: Sequence[str],
    vary: Sequence[str],
    seeds: int | None,
    announced: float | None = None,
) -> Design:
    """The study in `folder`, begun with these recipes if there is none. Raises UserError if it is another one.

    Args:
      folder: of the study.
      files, overrides: the recipes, and what changes all of them.
      vary: arguments KEY=VALUE,VALUE of which the recipes' variants are made.
      seeds: how many; None: as there are, or `SEEDS`.
      announced: the difference that it is made for, in points.
    """
    design = designs.read(folder)
    if overrides and not files:
        raise UserError(f"{overrides[0]}: name the recipes too that it changes")
    if vary and not files:
        raise UserError(f"--vary {vary[0]}: name the recipe too that it varies")
    grid = grids.parse(vary)
    if design is None:
        if not files:
            raise UserError(f"{folder}: holds no study to go on with; name the recipes to begin one")
        recipes = designs.read_recipes(files, overrides, grid)
        design = Design(began=now(), recipes=recipes, seeds=seeds or SEEDS, announced=announced)
        if grid:
            design = dataclasses.replace(design, grid=dict(grid), measure=designs.CHOICE_MEASURE, test=designs.CHOICE)
    elif files:
        design = design.with_recipes(designs.read_recipes(files, overrides, grid), folder / designs.FILE)
    if announced not in (None, design.announced):
        was = f"{design.announced:g}" if design.announced else "none"
        raise UserError(f"--detect {announced:g}: was {was} when the study began, and what it is made for is said before it")
    if seeds is not None:
        design = design.with_seeds(seeds, progress.count_done(members(design, folder)))
    return design


def check_options(design: Design, given: Sequence[str]) -> None:
    """Raises UserError for options that are about test accuracies, where the study is a grid."""
    if design.grid and given:
        raise UserError(f"{given[0]}: is about test accuracies, and of a grid the best is chosen on the hold-out; leave it out")


def run(design: Design, folder: Path, request: Request, others: Others, cluster: Start | None = None) -> None:
    """Runs what is missing and writes the report; see `wrn_jax.study`.

    Args:
      design: of the study.
      folder: where everything goes.
      request: how to run it.
      others: what stands beside it.
      cluster: an engine that finds place for the runs elsewhere, all at a time unless `request` says how many; None: here.
    """
    check_base(design, others, request.base)
    outlooks = outlook.look_ahead(design, request.share)
    state = progress.look(members(design, folder, outlook.forks_of(outlooks)), design.corruptions)
    foreseen = outlook.describe(design, outlooks, len(state.done), folder)
    for line in foreseen + resolution(design, others, request.spread):
        print(line)
    left = len(state.members) - len(state.done)
    rooms = find_places(request.jobs, left, cluster is not None) if left else [Place()]
    design.write(folder)
    if len(rooms) > 1:
        print(f"{len(rooms)} runs at a time")
    operations = {outlook.recipe.name: float(outlook.operations) for outlook in outlooks}

    def report() -> None:
        try:
            summary.write(design, state, operations, folder, others)
        except Exception as error:  # whatever it is: the runs are worth more
            console.say(f"the report could not be written ({reason(error)}); going on")

    try:
        engine.execute(state, rooms, outlook.epoch_operations(outlooks), report, cluster or engine.start)
    except BaseException:
        report()
        raise
    groups = summary.write(design, state, operations, folder, others)
    if groups:
        print(f"the report: {folder / 'report.md'}, report.html, comparison.json, plots/")
        reached = choice.reach(design, groups, state.is_over) if design.grid else verdict.reach(groups)
        print(reached.sentence.replace("**", ""))
    if state.failures:
        raise_failures(state, folder)
    if (base := request.base) is None:
        return
    if unjudged := summary.unjudged(design, groups, base):
        console.tell(f"study: no verdict against {base} on {', '.join(unjudged)}; see the report")
    if worse := summary.worse_than(design, groups, base):
        console.tell(f"study: shown to be worse than {base}: {', '.join(worse)}")
        sys.exit(1)


def find_places(jobs: int | None, left: int, on_cluster: bool) -> list[Place]:
    """Places for so many runs that are left, as many as may be at work at a time. Raises UserError."""
    most = None if jobs is None else min(jobs, left)
    return [Place()] * (most or left) if on_cluster else places.find(most)


def check_base(design: Design, others: Others, base: str | None) -> None:
    """Raises UserError unless the recipe that others should not be worse than is there."""
    known = [recipe.name for recipe in design.recipes] + [group.name for group in others.groups]
    if base is not None and base not in known:
        raise UserError(f"--fail-if-worse {base}: should be one of {', '.join(known)}")


def resolution(design: Design, others: Others, spread: float) -> list[str]:
    """What the study can show by the seeds that decide, and how many the difference needs that it is made for, in lines."""
    if design.grid:
        return []
    recipes = len(design.recipes) + len(others.groups)
    return outlook.resolution(recipes, design.seeds, design.announced, spread)


def put_beside(design: Design, folder: Path, places: Sequence[str], columns: Sequence[str], unit: Unit | None) -> Design:
    """The study with runs of other programs beside it, if any are named; see `Design.with_beside`. Raises UserError."""
    if not (places or columns or unit):
        return design
    return design.with_beside(places, columns, unit, progress.count_done(members(design, folder)))


def foresee(design: Design, folder: Path, request: Request, others: Others, on_cluster: bool) -> None:
    """Says what the study will do and take, and what it can show; starts no run and writes nothing down. Raises UserError.

    Times are measured here, also those of a study that finds its places on a cluster.
    """
    check_base(design, others, request.base)
    outlooks = outlook.look_ahead(design, request.share)
    done = progress.count_done(members(design, folder))
    for line in outlook.describe(design, outlooks, done, folder) + resolution(design, others, request.spread):
        print(line, flush=True)
    with console.waiting("measuring how long an update takes"):
        rooms = find_places(request.jobs, design.all_seeds * len(design.recipes), on_cluster)
        times = outlook.times(outlooks, design.all_seeds, rooms)
    for line in times:
        print(line)


def raise_failures(state: Progress, folder: Path) -> NoReturn:
    """Says in one line which runs failed. Raises Diverged if all of them diverged, else UserError."""
    names, of = ", ".join(state.failures), f"{len(state.failures)} of {len(state.members)} runs"
    if all(failure.code == DIVERGED for failure in state.failures.values()):
        raise Diverged(f"{of} diverged and stay as they are: {names}")
    raise UserError(f"{of} failed: {names}; see {folder / 'logs'}, and start again to try anew")
