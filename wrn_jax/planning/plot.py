"""The picture of a recipe: its moving values over the epochs, and below them what a run of it reached."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wrn_jax.config.levels import by_strength
from wrn_jax.config.moving import MOVING
from wrn_jax.config.timeline import level_course, shown_in
from wrn_jax.runtime.drawing import plain_text
from wrn_jax.training.records import SPLITS, EpochRow


@plain_text()
def draw_recipe(path: Path, recipes: Mapping[str, Any], title: str, rows: Sequence[EpochRow] = ()) -> None:
    """Draws the moving values of one recipe, or of two over each other, over their epochs; those that rest are named below.

    Args:
      path: the PNG file.
      recipes: by label, an object with `values` (every moving value, [n] by name, `augmentation` as place), `edges` (where they
        begin and the last one ends, in finished epochs, [n + 1]), `level_names`, `levels` and `shown`, such as a `Timeline`.
      title: the heading; may be empty.
      rows: the finished epochs of a run, whose accuracies are drawn below; may be empty.
    """
    from matplotlib.figure import Figure

    levels = by_strength({name: strengths for recipe in recipes.values() for name, strengths in recipe.levels.items()})
    courses = {
        name: [level_course(recipe, levels) if MOVING[name].is_level else recipe.values[name] for recipe in recipes.values()]
        for name in shown_in(recipes.values())
    }
    rests = {name: columns[0][0] for name, columns in courses.items() if all((c == columns[0][0]).all() for c in columns)}
    names = [name for name in courses if name == "learning_rate" or name not in rests]
    heights = [2.5] + [1] * (len(names) - 1) + [3] * bool(rows)
    figure = Figure(figsize=(10, 4 + len(names) + 3 * bool(rows)), layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    figure.suptitle(title)
    for axis, name in zip(axes, names, strict=False):
        top = max(float(column.max()) for column in courses[name]) or 1.0
        travelled = [np.abs(np.diff(column)).sum() for column in courses[name]]
        for index, ((label, recipe), column) in enumerate(zip(recipes.items(), courses[name], strict=True)):
            # Dense restarts fill an area: they go below, so that they do not hide the other recipe.
            order = 3 if travelled[index] == max(travelled) else 4
            look = {"color": ("tab:blue", "tab:orange")[index], "ls": ("-", "--")[index], "lw": 1.4, "zorder": order}
            axis.plot(1 + recipe.edges, np.append(column, column[-1]), drawstyle="steps-post", label=label, **look)
        axis.set_ylabel(MOVING[name].label.replace(" ", "\n" if name != "learning_rate" else " "))
        axis.grid(alpha=0.3)
        if MOVING[name].is_level:
            axis.set_yticks(range(len(levels)), levels)
            axis.set_ylim(-0.5, len(levels) - 0.5)
        else:
            axis.set_ylim(-0.04 * top, 1.1 * top)
            taken = np.unique(np.concatenate(courses[name]))
            if len(taken) <= 5 and (np.diff(taken) > 0.15 * top).all():
                axis.set_yticks(taken, [f"{value:g}" for value in taken])
    if rows:
        _draw_accuracies(axes[-1], rows)
    if len(recipes) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    resting = [f"{MOVING[name].label} {_written(name, rests[name], levels)}" for name in rests if name not in names]
    below = ["", *textwrap.wrap("does not move: " + ", ".join(resting), 110)] if resting else []
    axes[-1].set_xlabel("\n".join(["epoch (at its beginning)", *below]))
    axes[-1].set_xlim(1, 1 + max(recipe.edges[-1] for recipe in recipes.values()))
    figure.savefig(path, format="png", dpi=110)


def _written(name: str, value: float, levels: Sequence[str]) -> str:
    return levels[int(value)] if MOVING[name].is_level else f"{value:g}"


def _draw_accuracies(axis: Any, rows: Sequence[EpochRow]) -> None:
    """Draws the accuracies of each epoch where it ends: those of epoch 1 at the beginning of epoch 2."""
    ends = [row.epoch + 1 for row in rows]
    for split, color in (("train", "tab:gray"), ("valid", "tab:green"), ("test", "tab:red")):
        if split != "valid" or rows[0].valid_accuracy is not None:
            label = f"{SPLITS[split]} images" + (" (augmented, mixed, with dropout)" if split == "train" else "")
            accuracies = [100 * row.accuracy(split) for row in rows]
            axis.plot(ends, accuracies, color=color, marker=".", ms=4, lw=1.2, label=label)
    axis.set_ylabel("accuracy (%)")
    axis.set_ylim(0, 100)
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", fontsize=8)
