"""Runs of other programs, or of older studies, that stand in a study's report beside its own."""

import dataclasses

from wrn_jax.config import from_dict
from wrn_jax.report import other_runs, published_runs, runs
from wrn_jax.report.other_runs import Reading
from wrn_jax.report.runs import Group
from wrn_jax.runtime import console
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path
from wrn_jax.studies.design import Design
from wrn_jax.training.workdir import holds_run


@dataclasses.dataclass(frozen=True)
class Others:
    """The recipes of other programs; `lost` is why those that the design names cannot be read, empty if nothing is missing."""

    groups: tuple[Group, ...] = ()
    lost: str = ""


def load(design: Design) -> tuple[Group, ...]:
    """Reads them, one group for each recipe, by names that no recipe of the study has. Raises UserError.

    A place is a run as `compare` takes it; else a pattern, or a folder, whose runs are seeds of one recipe.
    """
    beside = design.beside
    if beside is None:
        return ()
    sources = [place for place in beside.places if _is_run(place)]
    patterns = [place for place in beside.places if place not in sources]
    groups = runs.group(runs.load_all(sources, patterns, Reading.of(beside.columns, beside.unit)))
    own = [(recipe.name, from_dict(recipe.config, recipe.name)) for recipe in design.recipes]
    others = [(run.source, run.config) for group in groups for run in group.runs if run.config is not None]
    runs.check_same_images([*own, *others])
    taken = [name for name, _ in own]
    return tuple(
        dataclasses.replace(group, name=f"{group.name} (beside)") if group.name in taken else group for group in groups
    )


def find(design: Design, named: bool) -> Others:
    """As `load`. Those that were not `named` at this start may be gone, which is told: the study itself lacks nothing."""
    try:
        return Others(load(design))
    except UserError as error:
        if named:
            raise
        console.tell(f"study: {error}; going on without the runs beside it (--beside names others)")
        return Others(lost=str(error))


def _is_run(place: str) -> bool:
    path = user_path(place)
    if path.is_file() or place in published_runs.LOGS or holds_run(path):
        return True
    return path.is_dir() and other_runs.is_run(path) and not other_runs.holds_runs(path)
