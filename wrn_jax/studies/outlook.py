"""What a study will take: operations, disk, and findings, by recipe."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from wrn_jax.config import checks, from_dict
from wrn_jax.planning import cost
from wrn_jax.planning.description import describe_length
from wrn_jax.report.runs import check_same_images, recipe_keys
from wrn_jax.runtime import devices
from wrn_jax.runtime.errors import UserError
from wrn_jax.studies.design import Design, Recipe
from wrn_jax.training.setup import Setup, make_setup

ALWAYS_KEPT = 3
"""Checkpoints that a run has beside those of its recipe: the best, and the last two."""


@dataclasses.dataclass(frozen=True, eq=False)
class Outlook:
    """A recipe of a study: the set-up of its runs on one device, and what one of them takes.

    Attributes:
      operations: of all updates.
      disk: bytes of its checkpoints, at most.
    """

    recipe: Recipe
    setup: Setup
    operations: int
    disk: int


def look_ahead(design: Design) -> list[Outlook]:
    """The recipes of a study. Raises UserError if two of them are the same, or are tested on different images."""
    outlooks: list[Outlook] = []
    keys: dict[str, str] = {}
    for recipe in design.recipes:
        setup = make_setup(from_dict(recipe.config, recipe.name), devices.make_mesh(1))
        same = keys.setdefault(repr(sorted(recipe_keys(setup.config).items())), recipe.name)
        if same != recipe.name:
            raise UserError(f"{same} and {recipe.name}: are the same recipe; give one of them")
        kept = min(setup.timeline.epochs, len(setup.timeline.checkpoint_epochs) + ALWAYS_KEPT)
        disk = kept * cost.state_bytes(setup.abstract_state)
        outlooks.append(Outlook(recipe, setup, cost.run_operations(setup), disk))
    check_same_images([(outlook.recipe.name, outlook.setup.config) for outlook in outlooks])
    return outlooks


def epoch_operations(outlooks: Sequence[Outlook]) -> dict[str, float]:
    """Operations of an epoch, by recipe."""
    return {outlook.recipe.name: outlook.operations / outlook.setup.timeline.epochs for outlook in outlooks}


def describe(design: Design, outlooks: Sequence[Outlook], done: int, folder: Path) -> list[str]:
    """What will run, in lines."""
    recipes, seeds = len(design.recipes), design.all_seeds
    lines = [f"{folder}: {recipes} recipes x {seeds} seeds = {recipes * seeds} runs, of which {done} are done"]
    for outlook in outlooks:
        config, timeline = outlook.setup.config, outlook.setup.timeline
        lines += [
            f"{outlook.recipe.name}: WideResNet-{config.model.depth}-{config.model.widen_factor}, {config.data.name}, "
            f"{describe_length(config, timeline)[0]}",
            f"  of a run: {outlook.operations:.3g} operations, {_size(outlook.disk)} of checkpoints at most",
            *(f"  {line}" for line in checks.report(checks.examine(config, timeline), config.silence)),
        ]
    return lines


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
