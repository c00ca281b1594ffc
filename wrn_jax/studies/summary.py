"""The report of a study: that of `compare` on its runs, and before it what was planned, how far it is, and what went wrong."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from wrn_jax.report import build, formats, measures, runs, verdict, writing
from wrn_jax.report.formats import listed
from wrn_jax.report.render.blocks import Block, Bullets, Section, Text
from wrn_jax.report.runs import Group, Run
from wrn_jax.report.sections import cards
from wrn_jax.studies import choice, power
from wrn_jax.studies.beside import Others
from wrn_jax.studies.design import Design
from wrn_jax.studies.progress import Progress
from wrn_jax.studies.runs import DIVERGED, Member


def write(
    design: Design,
    progress: Progress,
    operations: Mapping[str, float],
    folder: Path,
    others: Others,
) -> tuple[Group, ...]:
    """Writes the report into the folder of the study; what it compares, which is nothing as long as no epoch is finished.

    The verdict is by the seeds that were planned; with those that were added later there is another one, marked as such.

    Args:
      design: of the study.
      progress: how far its runs are.
      operations: of a whole run, by recipe.
      folder: where to.
      others: what stands beside it.

    Raises:
      UserError: runs do not compare, or the report cannot be written.
    """
    complete = progress.complete_seeds
    own = compared(design, progress, design.seeds)
    if not own:
        return ()
    if design.grid:
        reached = choice.reach(design, own, progress.is_over)
        choice.write(design, reached, operations, describe(design, progress), folder)
        return own
    groups = (*own, *others.groups)
    names = [recipe.name for recipe in design.recipes]
    title = f"Study: {', '.join(names)}" if len(names) < 4 else f"Study of {len(names)} recipes"
    document = build.build(groups, title, operations)
    blocks = describe(design, progress)
    if others.lost:
        blocks.append(Text(f"The runs beside it are not compared: {others.lost}.", "warning"))
    sections = [Section("The study", blocks)]
    if complete > design.seeds:
        every = (*compared(design, progress, design.all_seeds), *others.groups)
        sections.append(Section("With the seeds that were added later", added(design, every, complete, operations)))
    if complete >= design.seeds and (found := measured_power(design, own, groups)):
        blocks.append(Text(power.sentence(found)))
        sections.append(Section("What the study could show", [power.plot(found)], folded=True))
    first, *rest = document.sections
    writing.write(groups, dataclasses.replace(document, sections=[first, *sections, *rest]), folder)
    return groups


def compared(design: Design, progress: Progress, seeds: int) -> tuple[Group, ...]:
    """The recipes with those of their first `seeds` runs that count, and the looks at them so far.

    Between two looks the figures stay those of the last one. Before the first seed is complete, only its runs count.
    """
    complete = progress.complete_seeds
    counted = [(member, run) for member, run in progress.begun() if member.seed < min(seeds, max(complete, 1))]
    looks = tuple(number / seeds for number in range(2, min(complete, seeds) + 1))
    return tuple(dataclasses.replace(group, looks=looks) for group in grouped(design, counted))


def added(design: Design, groups: Sequence[Group], complete: int, operations: Mapping[str, float]) -> list[Block]:
    """What the runs show together with those of seeds that were added later."""
    warning = (
        f"This is not the verdict, which is by the {formats.count(design.seeds, 'seed')} of each recipe planned before the "
        f"first run. Here {formats.count(complete - design.seeds, 'seed')} more, added later, count as well. Who adds seeds "
        "because of what the first ones show finds differences more often than the p values say."
    )
    table = cards.results(groups, operations)
    table = dataclasses.replace(table, caption=f"{table.caption}, with the seeds that were added later")
    return [Text(warning, "warning"), Text(f"With all {complete} seeds: {verdict.reach(groups).sentence}"), table]


def measured_power(design: Design, own: Sequence[Group], groups: Sequence[Group]) -> power.Power | None:
    """The power that a finished study had."""
    tested = [pair for pair in measures.compare(groups, "last") if pair.adjusted is not None]
    return power.measured(own, len(tested), own[0].looks, design.announced)


def worse_than(design: Design, groups: Sequence[Group], base: str) -> list[str]:
    """The recipes of the study that are shown to be worse than one of those that are compared."""
    worse, own = list[str](), [recipe.name for recipe in design.recipes]
    for pair in measures.compare(groups, "last"):
        better, other = (pair.first, pair.second) if pair.difference > 0 else (pair.second, pair.first)
        if verdict.significant(pair) and better == base and other in own:
            worse.append(other)
    return worse


def unjudged(design: Design, groups: Sequence[Group], base: str) -> list[str]:
    """The recipes of the study on which there is no verdict against `base`."""
    judged = {
        name for pair in measures.compare(groups, "last") if pair.adjusted is not None for name in (pair.first, pair.second)
        if base in (pair.first, pair.second)
    }  # fmt: skip
    return [recipe.name for recipe in design.recipes if recipe.name not in {base, *judged}]


def grouped(design: Design, begun: Sequence[tuple[Member, Run]]) -> tuple[Group, ...]:
    """The recipes with these of their runs, in the order of the design."""
    order = [recipe.name for recipe in design.recipes]
    begun = sorted(begun, key=lambda pair: order.index(pair[0].recipe.name))
    recipes = [member.recipe.name for member, _ in begun]
    return runs.group([run for _, run in begun], list(dict.fromkeys(recipes)), recipes) if begun else ()


def describe(design: Design, progress: Progress) -> list[Block]:
    """What was planned, how far it is, and what went wrong."""
    finished, complete = progress.finished, progress.complete_seeds
    recipes, seeds = len(design.recipes), design.seeds
    plan = [
        f"Written down before the first run: {recipes} recipes ({listed([recipe.name for recipe in design.recipes])}), "
        f"seeds 0 to {seeds - 1} of each, judged by the {design.measure}.",
        f"How a difference is shown: {design.test}.",
        "The runs of a seed share the order of the data and the random draws, and come one after the other, so that an "
        "unfinished study has about as many runs of each recipe.",
        "Looks before the end: a report may be read after every seed of which all runs have ended, from the second on, so all "
        "of them count. Before Holm's adjustment p is raised for the looks so far, by alpha spending as Lan and DeMets "
        "(1983) do for O'Brien and Fleming's boundaries, and by a twentieth more, since those are of normal means.",
    ]
    if design.announced:
        plan.append(f"Made for a difference of {design.announced:g} points, said before the first run.")
    if design.beside:
        since = (
            f"after {formats.count(design.beside.finished_runs, 'run')}"
            if design.beside.finished_runs
            else "before the first run"
        )
        plan.append(
            f"Beside it stand runs of other programs ({listed(design.beside.places)}), named {since}. They count in Holm's "
            "adjustment."
        )
    blocks: list[Block] = [Bullets(choice.plan(design) if design.grid else plan)]
    for addition in design.added:
        text = (
            f"Seeds were added later, up to seed {addition.seeds - 1}, when {addition.finished_runs} runs were finished. The "
            f"verdict is by the {formats.count(seeds, 'seed')} planned; with those that were added there "
            f"{'is another one below' if complete > seeds else 'will be another one'}."
        )
        blocks.append(Text(text, "warning"))
    if len(finished) < len(progress.members):
        came = f"{len(finished)} of {len(progress.members)} runs"
        text = f"{came} came to their end; no run is left." if progress.is_over else f"This study is not finished: {came} are."
        if complete > 1:
            text += f" Compared are seeds 0 to {min(complete, seeds) - 1}, of which every run has ended or failed."
        blocks.append(Text(text, "warning"))
    for name, failure in progress.failures.items():
        how = "diverged" if failure.code == DIVERGED else "failed"
        if name in finished:
            what = "Its training came to its end, and counts; what is missing is an evaluation"
        elif design.grid:
            what = "It is not chosen"
        else:
            what = "A recipe is judged by its other runs, which flatters one that may diverge"
        text = f"{name} {how}: {failure.text}. {what}."
        blocks.append(Text(text, "warning"))
    return blocks
