"""Which runs went on from others."""

import dataclasses

from tests import sample_runs
from wrn_jax.report.runs import Group
from wrn_jax.report.sections.descent import descent
from wrn_jax.training.records import Origin


def branched(group, sources, epoch, agreed):
    """The group, its runs gone on from these."""
    runs = []
    for run, source in zip(group.runs, sources, strict=True):
        origin = Origin(kind="branch", source=source, checkpoint=str(epoch), step=4 * epoch, epoch=epoch, agreed=agreed)
        runs.append(dataclasses.replace(run, headers=(dataclasses.replace(run.headers[0], origin=origin),)))
    return Group(group.name, tuple(runs))


def test_a_branch_is_drawn_from_the_recipe_that_it_left_to_its_end(tmp_path):
    curve = [0.1, 0.2, 0.3, 0.4, 0.5]
    one = sample_runs.recipe(tmp_path, "one", [curve, curve])
    assert descent([one]) == []
    two = sample_runs.recipe(tmp_path, "two", [curve, curve], recipe__dropout=0.1)
    three = sample_runs.recipe(tmp_path, "three", [curve], recipe__dropout=0.2)
    two = branched(two, [run.source for run in one.runs], 4, 16)
    three = branched(three, ["/elsewhere"], 2, 3)
    plot, table = descent([one, two, three])
    assert table.rows == [
        ["two", "one", "4", "two-seed0 and two-seed1", "yes"],
        ["three", "/elsewhere", "2", "three-seed0", "no: see the notes"],
    ]
    lines = {line.name: (line.x, line.y) for line in plot.series}
    assert lines["one"] == ([0, 5], [3, 3])
    assert lines["two"] == ([4, 4, 5], [3, 2, 2])
    assert lines["three"] == ([2, 2, 5], [1, 1, 1])
    assert plot.rows  # its heights are no figures
    assert "two from one after epoch 4" in plot.description
