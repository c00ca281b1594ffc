"""Which runs went on from runs of another recipe: a table, and a picture of who left whom."""

import os
from collections.abc import Sequence

from wrn_jax.report.formats import listed
from wrn_jax.report.render.blocks import Block, Plot, Series, Table
from wrn_jax.report.runs import Group, Run
from wrn_jax.training.records import Origin


def descent(groups: Sequence[Group]) -> list[Block]:
    """Where runs branched off; nothing if all began by themselves."""
    names = {os.path.realpath(run.source): group.name for group in groups for run in group.runs}
    rows: list[list[str]] = []
    firsts: dict[str, Origin] = {}
    for group in groups:
        branched = [(run, origin) for run in group.runs if (origin := branch(run))]
        for source, epoch in dict.fromkeys((_from(names, origin), origin.epoch) for _, origin in branched):
            which = [(run, origin) for run, origin in branched if (_from(names, origin), origin.epoch) == (source, epoch)]
            alike = all(origin.is_seamless for _, origin in which)
            runs = listed([run.name for run, _ in which])
            rows.append([group.name, source, str(epoch), runs, "yes" if alike else "no: see the notes"])
        firsts |= {group.name: branched[0][1]} if branched else {}
    if not rows:
        return []
    heads = ("recipe", "went on from", "after epoch", "runs", "both are the same until there")
    note = "A run whose recipe is the same until there has the bits of one that was trained apart from the start."
    return [_plot(groups, names, firsts), Table("Runs that went on from others", heads, rows, note=note)]


def branch(run: Run) -> Origin | None:
    """Where a run left another one; None for one that began by itself, or with weights."""
    origins = [header.origin for header in run.headers if header.origin and header.origin.kind == "branch"]
    return origins[-1] if origins else None


def _from(names: dict[str, str], origin: Origin) -> str:
    """The recipe of the run that another one left, or its folder where it is not among those compared."""
    return names.get(os.path.realpath(origin.source), origin.source)


def _plot(groups: Sequence[Group], names: dict[str, str], firsts: dict[str, Origin]) -> Plot:
    """A line for each recipe, from where its first run left another one to its end; the first recipe is on top."""
    height = {group.name: float(len(groups) - place) for place, group in enumerate(groups)}
    series = []
    for group in groups:
        end, own, origin = float(group.runs[0].epochs), height[group.name], firsts.get(group.name)
        if origin is None:
            series.append(Series(group.name, [0.0, end], [own, own]))
        else:
            start = float(origin.epoch or 0)
            series.append(Series(group.name, [start, start, end], [height.get(_from(names, origin), own), own, own]))
    said = [f"{name} from {_from(names, origin)} after epoch {origin.epoch}" for name, origin in firsts.items()]
    return Plot(
        "descent",
        "Who went on from whom",
        "epoch",
        "recipe, the first on top",
        series,
        rows=True,
        description=f"Went on: {'; '.join(said)}.",
    )
