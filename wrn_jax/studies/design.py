"""What a study is, written to `study.json` before its first run: recipes, seeds, and how they will be judged.

What is decided beforehand cannot be chosen by its result. Seeds that are added later are written down as added later.
"""

import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from wrn_jax.config import Config, from_dict
from wrn_jax.config.agreement import changed_keys
from wrn_jax.data import own_classes
from wrn_jax.report.other_runs import Reading
from wrn_jax.report.runs import recipe_keys
from wrn_jax.runtime.environment import now
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import check_format, write_atomically
from wrn_jax.runtime.text import first_few, shown
from wrn_jax.studies import grid as grids
from wrn_jax.studies.grid import Grid

FORMAT = 1
FILE = "study.json"
MEASURE = "test accuracy after the last epoch"
TEST = (
    "Welch's t test over the seeds, two-sided, p < 0.05 after alpha spending over a look at every complete seed from the "
    "second on, and Holm's adjustment over all pairs of recipes"
)

CHOICE_MEASURE = "validation accuracy after the last epoch"
CHOICE = (
    "the recipe with the highest mean over the seeds, the first among equals, of those whose runs have all come to their end; "
    "the test accuracy is shown of this one alone, and when no run is left"
)

Positive = Annotated[int, Field(strict=True, ge=1)]
Text = Annotated[str, Field(strict=True)]
Unit = Literal["percent", "fraction"]


@with_config(ConfigDict(extra="forbid"))
@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe of a study.

    Attributes:
      name: unique in the study; its runs are called NAME-seedN, with "_" for spaces.
      file: as `load_file` takes it.
      overrides: arguments `--config.KEY=VALUE` that change it.
      config: what both gave when the recipes were named last, as plain JSON data; its seed means nothing.
    """

    name: Text
    file: Text
    overrides: tuple[Text, ...]
    config: dict[str, Any]

    @property
    def arguments(self) -> list[str]:
        """The arguments of the training command that name it."""
        return ["--config", self.file, *self.overrides]

    @functools.cached_property
    def epochs(self) -> int:
        """Epochs of a run."""
        return self.settled.recipe.run_epochs

    def change(self) -> str:
        """In what the file is another recipe than when the study began; empty if it is not. Raises UserError."""
        return differences(self.settled, read_config(self.file, self.overrides))

    @functools.cached_property
    def settled(self) -> Config:
        """`config`, with the keys that this version has beyond those of the version that wrote it."""
        return from_dict(self.config, self.name)


@with_config(ConfigDict(extra="forbid"))
@dataclasses.dataclass(frozen=True, kw_only=True)
class Addition:
    """Seeds that were added: when, the number of seeds from then on, and how many runs were finished by then."""

    time: Text
    seeds: Positive
    finished_runs: Annotated[int, Field(strict=True, ge=0)]


@with_config(ConfigDict(extra="forbid"))
@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside:
    """Runs of other programs that stand beside those of the study: since when, and how many runs were finished by then.

    `places`, `columns` and `unit` are what `--beside`, `--columns` and `--unit` said.
    """

    time: Text
    finished_runs: Annotated[int, Field(strict=True, ge=0)]
    places: tuple[Text, ...]
    columns: tuple[Text, ...] = ()
    unit: Unit | None = None


@with_config(ConfigDict(extra="forbid"))
@dataclasses.dataclass(frozen=True, kw_only=True)
class Design:
    """What a study is.

    Attributes:
      began: when it was written down, as in 2026-01-31T12:00:00+0000.
      recipes: what is compared; differences are taken from the first.
      seeds: how many at the beginning: 0, 1, ... for every recipe.
      measure: what recipes are judged by.
      test: how a difference is shown.
      added: seeds that were added later.
      announced: the difference that it is made for, in points, if that was said.
      beside: runs of other programs that it is compared with.
      corruptions: whether its runs are evaluated on corrupted images too.
      grid: the values that the recipes are the variants of, by key; the best of them is chosen on the hold-out, as `test` says.
    """

    began: Text
    recipes: tuple[Recipe, ...]
    seeds: Positive
    measure: Text = MEASURE
    test: Text = TEST
    added: tuple[Addition, ...] = ()
    announced: Annotated[float, Field(strict=True, gt=0)] | None = None
    beside: Beside | None = None
    corruptions: bool = False
    grid: dict[Text, tuple[Text, ...]] | None = None

    @property
    def all_seeds(self) -> int:
        """The number of seeds, those that were added later too."""
        return self.added[-1].seeds if self.added else self.seeds

    def with_seeds(self, seeds: int, finished_runs: int) -> Self:
        """The study with more seeds. Raises UserError for less than it has."""
        if seeds < self.all_seeds:
            raise UserError(f"--seeds {seeds}: the study has {self.all_seeds} already, and what was planned is not taken back")
        if seeds == self.all_seeds:
            return self
        if self.grid:
            raise UserError(f"--seeds {seeds}: a grid is chosen from with the {self.seeds} seeds that were planned")
        return dataclasses.replace(self, added=(*self.added, Addition(time=now(), seeds=seeds, finished_runs=finished_runs)))

    def with_beside(self, places: Sequence[str], columns: Sequence[str], unit: Unit | None, finished_runs: int) -> Self:
        """The study with these runs of other programs beside it, in place of others. Raises UserError."""
        Reading.of(columns, unit)
        if not places:
            raise UserError("--columns and --unit say how to read what --beside names")
        own = self.beside
        if own and (own.places, own.columns, own.unit) == (tuple(places), tuple(columns), unit):
            return self
        new = Beside(time=now(), finished_runs=finished_runs, places=tuple(places), columns=tuple(columns), unit=unit)
        return dataclasses.replace(self, beside=new)

    def with_corruptions(self, asked: bool | None) -> Self:
        """The study with or without evaluations on corrupted images; None: as it is."""
        return self if asked is None else dataclasses.replace(self, corruptions=asked)

    def with_recipes(self, recipes: Sequence[Recipe], source: Path) -> Self:
        """The study with its recipes as they are named now: where their files lie, and the keys that a resumed run may change.

        Raises UserError, which names `source`, unless these recipes are those of the study.
        """
        own, asked = ([recipe.name for recipe in which] for which in (self.recipes, recipes))
        if own != asked:
            raise UserError(f"{source}: is a study of {', '.join(own)}, not of {', '.join(asked)}; choose another --out")
        for ours, theirs in zip(self.recipes, recipes, strict=True):
            if different := differences(ours.settled, theirs.settled):
                raise UserError(f"{source}: {ours.name} is another recipe now: {different}; choose another --out")
        return dataclasses.replace(self, recipes=tuple(recipes))

    def write(self, folder: Path) -> None:
        """Writes `study.json`. Raises UserError."""
        tree = {"format": FORMAT} | dataclasses.asdict(self)
        try:
            write_atomically(folder / FILE, json.dumps(tree, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"{folder / FILE}: cannot be written: {error.strerror}") from None


_DESIGN = TypeAdapter(Design)


def read(folder: Path) -> Design | None:
    """The study in `folder`; None if there is none. Raises UserError for a damaged file, or one of a newer format."""
    path = folder / FILE
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise ValueError("no table")
        check_format(tree.pop("format", FORMAT), FORMAT, path)
        design = _DESIGN.validate_python(tree)
        _check(design)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, AttributeError, RecursionError) as error:
        reason = f" ({error})" if type(error) is ValueError else ""
        if isinstance(error, ValidationError):
            wrong = error.errors(include_url=False, include_input=False)[0]
            reason = f" ({'.'.join(map(str, wrong['loc']))}: {wrong['msg']})"
        raise UserError(f"{path}: is not the design of a study{reason}; restore it, or choose another --out") from None
    for recipe in design.recipes:
        from_dict(recipe.config, f"{path}, {recipe.name}")
    return design


def _check(design: Design) -> None:
    """Raises ValueError for what no study has."""
    names = [recipe.name for recipe in design.recipes]
    if not names or len(set(names)) < len(names):
        raise ValueError("recipes: should be some, each of another name")
    if wrong := [name for name in names if not name or name.startswith(".") or "/" in name or "\0" in name]:
        raise ValueError(f"recipes: {shown(wrong[0])} is no name of a folder")
    seeds = [design.seeds, *(addition.seeds for addition in design.added)]
    if design.seeds < 1 or any(after <= before for before, after in itertools.pairwise(seeds)):
        raise ValueError("seeds: should be at least 1, and more each time that some are added")


def read_recipes(files: Sequence[str], overrides: Sequence[str], grid: Grid | None = None) -> tuple[Recipe, ...]:
    """Recipes from their files, called after them; with a grid their variants. Raises UserError."""
    names = [re.sub(r"[^\w.+=-]", "_", Path(file).stem).lstrip(".") for file in files]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{twice}: two recipes have this name; give one of the files another")
    if grid:
        for name, file in zip(names, files, strict=True):
            check_values(name, file, overrides, grid)
    recipes: list[Recipe] = []
    for name, file in zip(names, files, strict=True):
        for more, arguments in grids.variants(grid or {}):
            own = (*overrides, *arguments)
            config = read_config(file, own).to_dict()
            recipes.append(Recipe(name=f"{name} {more}" if more else name, file=file, overrides=own, config=config))
    if long := next((recipe.name for recipe in recipes if len(recipe.name) > grids.LONGEST), None):
        raise UserError(f"{long[:60]}...: this name is too long for a folder; vary fewer keys at a time")
    if grid:
        grids.check([(recipe.name, from_dict(recipe.config, recipe.name)) for recipe in recipes])
    return tuple(recipes)


def check_values(name: str, file: str, overrides: Sequence[str], grid: Grid) -> None:
    """Raises UserError unless each value of a grid, taken alone, makes another recipe of that in `file` than the others do."""
    own = recipe_keys(read_config(file, overrides))
    for key, texts in grid.items():
        if any(re.match(rf"--config\.{re.escape(key)}(=|$)", override) for override in overrides):
            raise UserError(f"--vary {key}: --config.{key} sets it as well; choose one")
        known = [recipe_keys(read_config(file, [*overrides, f"--config.{key}={text}"])) for text in texts]
        for (one, first), (other, second) in itertools.combinations(zip(texts, known, strict=True), 2):
            if first == second:
                raise UserError(f"--vary {key}: {shown(one)} and {shown(other)} make the same recipe of {name}")
        if known == [own]:
            raise UserError(f"--vary {key}: {shown(texts[0])} changes nothing of {name}")


def read_config(file: str, overrides: Sequence[str]) -> Config:
    """The configuration in a file, changed by `--config.KEY=VALUE`. Raises UserError."""
    if seed := next((text for text in overrides if re.match(r"--config\.seed\b", text)), None):
        raise UserError(f"{seed}: a study has seeds 0, 1, ...; --seeds N says how many")
    return own_classes.read_config(file, overrides)


def differences(old: Config, new: Config) -> str:
    """The first keys in which configurations differ, with their values, apart from seed and place; empty if in none."""
    return first_few([f"{key} {change}" for key, change in changed_keys(old, new).items() if key != "seed"])
