"""The runs of a study: which there are, how far each is, and what is missing, by their folders alone."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from wrn_jax.config import FREE_ON_RESUME, flatten
from wrn_jax.report import runs as finished_runs
from wrn_jax.report.runs import Run
from wrn_jax.runtime.environment import now
from wrn_jax.runtime.errors import Diverged, UserError
from wrn_jax.runtime.files import write_atomically
from wrn_jax.studies.design import Design, Recipe, differences
from wrn_jax.studies.sharing import Fork, branching_epochs
from wrn_jax.training.workdir import checkpoint_steps, holds_progress, holds_run, saved_config

_OF_DATA = tuple(key for key in FREE_ON_RESUME if key.startswith("data."))
"""Keys that say where data lie."""

DIVERGED = Diverged.code
"""The exit code of a run that would diverge again."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """How a run ended that did not come to its end: exit code, negative for a signal, and the last line that it printed."""

    code: int
    text: str
    time: str = ""


@dataclasses.dataclass(frozen=True)
class Member:
    """A run of a study.

    Attributes:
      recipe, seed: what it is.
      workdir: its work directory.
      log: where its output goes.
      trunk, fork: the run of the same seed that it is to go on from, and where; None for one that begins by itself.
      branches: epochs after which others go on from it.
      is_evaluated: whether its checkpoints are evaluated: not in a grid, which is chosen from on the hold-out.
    """

    recipe: Recipe
    seed: int
    workdir: Path
    log: Path
    trunk: Self | None = None
    fork: Fork | None = None
    branches: tuple[int, ...] = ()
    is_evaluated: bool = True

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.workdir.name

    def train(self) -> list[str]:
        """The arguments of the command that starts the run or goes on with it."""
        place = ["--workdir", str(self.workdir), "--resume=auto"]
        if self.branches:
            place += ["--branches-after", ",".join(map(str, self.branches))]
        if self.trunk is not None and self.fork is not None and self.can_branch() and not holds_progress(self.workdir):
            place += ["--branch-from", str(self.trunk.workdir), "--checkpoint", str(self.fork.epochs)]
        return ["train", *self.recipe.arguments, f"--config.seed={self.seed}", *place]

    def can_branch(self) -> bool:
        """Whether the checkpoint of its trunk is there from which it is to go on."""
        return self.trunk is not None and self.fork is not None and self.fork.steps in checkpoint_steps(self.trunk.workdir)

    def evaluate(self, checkpoint: str, corruptions: bool) -> list[str]:
        """The arguments of the command that evaluates a checkpoint of it, with the data where the recipe says by now."""
        own, wanted = (flatten(config.to_dict()) for config in (saved_config(self.workdir), self.recipe.settled))
        more = [f"--config.{key}={wanted[key]}" for key in _OF_DATA if own.get(key) != wanted[key]]
        more += ["--corruptions"] if corruptions else []
        return ["evaluate", "--workdir", str(self.workdir), "--checkpoint", checkpoint, *more]

    def failure(self) -> Failure | None:
        """How it failed at its last start; None if it did not."""
        try:
            return Failure(**json.loads(self._mark.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def fail(self, code: int, text: str) -> Failure:
        """Writes down that it failed."""
        failure = Failure(code, text, now())
        with contextlib.suppress(OSError):  # it is told in any case
            self.workdir.mkdir(parents=True, exist_ok=True)
            write_atomically(self._mark, json.dumps(dataclasses.asdict(failure)) + "\n")
        return failure

    def forgive(self) -> None:
        """Forgets that it failed, so that it is tried again."""
        with contextlib.suppress(OSError):
            self._mark.unlink()

    @property
    def _mark(self) -> Path:
        return self.workdir / "failure.json"


def members(design: Design, folder: Path, forks: Mapping[str, Fork] | None = None) -> list[Member]:
    """All runs of a study, seed by seed, so that one that is not finished is fair already.

    `forks`: where recipes leave others that come before them, by name; None: all begin by themselves.
    """
    forks, found = forks or {}, dict[tuple[str, int], Member]()
    for seed in range(design.all_seeds):
        for recipe in design.recipes:
            name, fork = f"{recipe.name.replace(' ', '_')}-seed{seed}", forks.get(recipe.name)
            found[recipe.name, seed] = Member(
                recipe,
                seed,
                folder / "runs" / name,
                folder / "logs" / f"{name}.log",
                found[fork.trunk, seed] if fork else None,
                fork,
                tuple(branching_epochs(forks, recipe.name)),
                design.grid is None,
            )
    return list(found.values())


def load(member: Member) -> Run | None:
    """The run as far as it is; None without a finished epoch. Raises UserError for one that is damaged, or is another."""
    if not holds_run(member.workdir):
        return None
    saved = saved_config(member.workdir)
    wanted = member.recipe.settled
    settled = {"precision": saved.precision} if wanted.precision == "auto" else {}
    settled |= {"model.num_classes": saved.model.num_classes} if wanted.model.num_classes is None else {}
    different = differences(wanted.override(settled), saved)
    if different or saved.seed != member.seed:
        raise UserError(f"{member.workdir}: holds another run: {different or f'seed {saved.seed}'}; move it away")
    records = member.workdir / "metrics.jsonl"
    return finished_runs.load(str(member.workdir)) if records.exists() and records.stat().st_size else None


def is_trained(run: Run | None) -> bool:
    """Whether a run has come to its end: its last record, and the checkpoint that belongs to it."""
    return run is not None and run.finished and any(kept.epoch == run.last.epoch for kept in run.kept)


def missing(member: Member, run: Run | None, corruptions: bool) -> list[str] | None:
    """The arguments of the next command that a run needs; None if it needs none.

    One that has ended and is evaluated, or need not be, needs none without its checkpoints either, which are large. Raises
    UserError where they are gone, and corrupted images are asked for: what it has would be lost if it were trained anew.
    """
    if run is None or not run.finished:
        return member.train()
    epochs = {"last": run.last.epoch, "best": run.best.epoch} if member.is_evaluated else {}
    evaluations = {name: run.evaluation(epoch) for name, epoch in epochs.items()}
    for name, evaluation in evaluations.items():
        if evaluation is None or (corruptions and not evaluation.figures.get("corruptions")):
            if evaluation is not None and not run.kept:
                raise UserError(
                    f"{member.workdir}: has no checkpoints left to be evaluated on corrupted images; --no-corruptions leaves "
                    "them out; or delete the folder to have the run trained anew"
                )
            return member.evaluate(name, corruptions) if is_trained(run) else member.train()
    return None if evaluations or is_trained(run) or not run.kept else member.train()


def last_line(log: Path, accept: Callable[[str], bool] = bool, begin: int = 0) -> str:
    """The last line of a run's output from byte `begin` on that is accepted, of its last 10,000; empty if there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(max(begin, file.seek(0, 2) - 10_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if accept(line.strip())), "")


def command_line(arguments: list[str]) -> list[str]:
    """The command of the package as a process is started with it."""
    return [sys.executable, "-m", f"wrn_jax.{arguments[0]}", *arguments[1:]]
