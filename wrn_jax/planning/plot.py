"""The picture of a recipe: its moving values over the epochs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def draw_recipe(path: Path, recipes: Mapping[str, Any], title: str) -> None:
    """Draws the moving values of one recipe, or of two over each other, over their epochs.

    Args:
      path: the PNG file.
      recipes: by label, an object with `values` (every moving value at every step, [steps] by name, `augmentation` as index),
        `level_names` (of the augmentation levels) and `steps_per_epoch`, such as a `Timeline`.
      title: the heading; may be empty.
    """
    from matplotlib.figure import Figure

    names = list(next(iter(recipes.values())).values)
    levels = list(dict.fromkeys(level for recipe in recipes.values() for level in recipe.level_names))
    figure = Figure(figsize=(10, 9), layout="constrained")
    axes = figure.subplots(len(names), 1, sharex=True, height_ratios=[2.5] + [1] * (len(names) - 1))
    figure.suptitle(title)
    for axis, name in zip(axes, names, strict=True):
        top = max(float(recipe.values[name].max()) for recipe in recipes.values()) or 1.0
        travelled = [np.abs(np.diff(recipe.values[name])).sum() for recipe in recipes.values()]
        for index, (label, recipe) in enumerate(recipes.items()):
            column = recipe.values[name]
            if name == "augmentation":
                column = np.array([levels.index(level) for level in recipe.level_names])[column]
            epochs = 1 + np.arange(len(column) + 1) / recipe.steps_per_epoch
            # Dense restarts fill an area: they go below, so that they do not hide the other recipe.
            order = 3 if travelled[index] == max(travelled) else 4
            look = {"color": ("tab:blue", "tab:orange")[index], "ls": ("-", "--")[index], "lw": 1.4, "zorder": order}
            axis.plot(epochs, np.append(column, column[-1]), drawstyle="steps-post", label=label, **look)
        axis.set_ylabel(name.replace("_", "\n" if name != "learning_rate" else " "))
        axis.grid(alpha=0.3)
        if name == "augmentation":
            axis.set_yticks(range(len(levels)), levels)
            axis.set_ylim(-0.5, len(levels) - 0.5)
            axis.invert_yaxis()
        else:
            axis.set_ylim(-0.04 * top, 1.1 * top)
    if len(recipes) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    axes[-1].set_xlabel("epoch")
    axes[-1].set_xlim(1, 1 + max(len(recipe.values[names[0]]) / recipe.steps_per_epoch for recipe in recipes.values()))
    figure.savefig(path, format="png", dpi=110)
