"""Finished runs as they are compared: read from a work directory, a published log or a CSV, and grouped into recipes."""

import csv
import dataclasses
import fnmatch
import functools
import glob
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from wrn_jax.config import FREE_ON_RESUME, Config, datasets, flatten
from wrn_jax.config.schedules import levels_of
from wrn_jax.config.timeline import Timeline
from wrn_jax.evaluation import files
from wrn_jax.report import other_runs, published_runs
from wrn_jax.report.other_runs import Reading
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.files import user_path
from wrn_jax.runtime.text import printable
from wrn_jax.training.records import (
    EpochRow,
    Header,
    Origin,
    best_row,
    epochs_without_better,
    read_headers,
    read_run,
    rows_from,
)
from wrn_jax.training.workdir import checkpoint_steps, saved_config

Row = TypeVar("Row")

_PROGRAMS = ("python", "jax", "flax", "optax", "wrn_jax")
_SEED = re.compile(r"[-_. ]*seed[-_. ]?[0-9]+$")
_ANY_SEED = re.compile(r"[-_. ]*seed[-_. ]?[0-9]+")


def _label(name: str) -> str:
    """A name as one printable line in which a report takes nothing for bold: `**` are other asterisks that look alike."""
    return printable(name).replace("**", "∗∗")


@dataclasses.dataclass(frozen=True)
class Kept:
    """A checkpoint that is there: its name, and the epoch after which it was taken, None within an epoch."""

    name: str
    epoch: int | None


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` left of a checkpoint after `epoch` finished epochs.

    Attributes:
      figures: the JSON object.
      correct: bool [test images] in the order of the data set, None where the predictions are not there.
      digest: tells whether two evaluations are of the same images.
    """

    epoch: int
    figures: Mapping[str, Any]
    correct: np.ndarray | None
    digest: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """One run.

    Attributes:
      source: what it was read from, as given.
      rows: one per epoch, from epoch 1; a log's learning rate is the one after the epoch.
      config, timeline: what it did; None for a CSV, which does not say.
      headers: of its starts, the first one first; none for a log.
      kept: checkpoints.
      evaluations: in the order of their epochs.
      log: name of the published log that it is, or None.
      notes: what a reader must know of how it was read.
      in_percent: of another program's run, whether its accuracies were read as per cent and not as fractions; else None.
      pattern: what it shares with the other runs of a recipe that is not known; None for a recipe of its own.
      lost: of another program's run, epochs after `rows` in which its test accuracy was no number.
    """

    name: str
    source: str
    rows: tuple[EpochRow, ...]
    config: Config | None = None
    timeline: Timeline | None = None
    headers: tuple[Header, ...] = ()
    kept: tuple[Kept, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    log: str | None = None
    notes: tuple[str, ...] = ()
    in_percent: bool | None = None
    pattern: str | None = None
    lost: int = 0

    @property
    def judge(self) -> str:
        """The split that chose the best epoch, "valid" or "test"."""
        return "test" if self.rows[0].valid_accuracy is None else "valid"

    @property
    def seed(self) -> int | None:
        """The seed; None where it is not known."""
        return None if self.config is None or self.log else self.config.seed

    @property
    def origin(self) -> Origin | None:
        """Where it began; None for random weights, and for a branch that has the bits of a run from these."""
        origin = self.headers[0].origin if self.headers else None
        return None if origin is None or origin.is_seamless else origin

    @property
    def beginning(self) -> str:
        """What it began with, in words that are the same for all seeds of a recipe."""
        origin = self.origin
        if origin is None:
            return "random weights"
        source = _ANY_SEED.sub("", origin.source)
        if origin.kind == "branch":
            return f"the state after update {origin.step} of {source}"
        which = [] if origin.step is None else [f"checkpoint {origin.checkpoint}"]
        which += [origin.network] if origin.network else []
        return f"the weights of {source}" + (f" ({', '.join(which)})" if which else "")

    @property
    def epochs(self) -> int:
        """The epochs of the whole run; of one of another program those that it has."""
        return len(self.rows) + self.lost if self.timeline is None else self.timeline.epochs

    @property
    def last(self) -> EpochRow:
        """The row of the last epoch."""
        return self.rows[-1]

    @functools.cached_property
    def best(self) -> EpochRow:
        """The row of the best epoch, as `judge` chose it; the earliest among equals."""
        return best_row(self.rows, self.judge)

    @functools.cached_property
    def top(self) -> EpochRow:
        """The row of the highest test accuracy, whatever chose the best; the earliest among equals."""
        return best_row(self.rows, "test")

    @property
    def finished(self) -> bool:
        """Whether it has run all its epochs, or ended early by its own rule; one of another program unless it diverged."""
        patience = None if self.config is None else self.config.early_stopping_patience
        stopped = patience is not None and epochs_without_better(self.rows, self.judge) >= patience
        return stopped or self.last.epoch >= self.epochs

    @property
    def versions(self) -> tuple[tuple[str, str], ...]:
        """The programs that made it with their versions, those of all its starts; none of a log."""
        known = [(name, header.versions.get(name, "")) for header in self.headers for name in _PROGRAMS]
        return tuple(dict.fromkeys((name, version) for name, version in known if version and version != "not installed"))

    def evaluation(self, epoch: int) -> Evaluation | None:
        """The evaluation of the checkpoint after `epoch`."""
        return next((evaluation for evaluation in self.evaluations if evaluation.epoch == epoch), None)


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """The runs of one recipe, which differ in their seeds alone.

    `looks`: of a study that is looked at before its end, the share of its seeds that was there at each look so far.
    """

    name: str
    runs: tuple[Run, ...]
    looks: tuple[float, ...] = ()

    @functools.cached_property
    def counted(self) -> tuple[Run, ...]:
        """The runs whose figures count: the finished ones; if there is none, all, cut to the epochs that all of them have."""
        if finished := tuple(run for run in self.runs if run.finished):
            return finished
        shortest = min(len(run.rows) for run in self.runs)
        return tuple(dataclasses.replace(run, rows=run.rows[:shortest]) for run in self.runs)

    @property
    def finished(self) -> bool:
        """Whether any of its runs is finished."""
        return any(run.finished for run in self.runs)

    @property
    def config(self) -> Config | None:
        """The configuration, apart from the seed."""
        return self.runs[0].config

    @property
    def timeline(self) -> Timeline | None:
        """The recipe on its clock."""
        return self.runs[0].timeline

    @property
    def judge(self) -> str:
        """The split that chose the best epochs."""
        return self.runs[0].judge

    @property
    def log(self) -> str | None:
        """Name of the published log that this is, or None."""
        return self.runs[0].log


def load(source: str, reading: Reading | None = None) -> Run:
    """Reads a run.

    Args:
      source: a directory that `train` wrote, a CSV with the columns of `published_runs.COLUMNS`, what another program wrote
        (see `other_runs`), or the name of a published log, which a path of that name goes before.
      reading: how to read what another program wrote.

    Raises:
      UserError: there is no such run, or it cannot be read.
    """
    path = user_path(source)
    try:
        if path.is_dir():
            if other_runs.holds_runs(path):
                raise UserError(f"{source}: is a folder of runs; name those in it ({source}/*)")
            return _load_other(path, source, reading) if other_runs.is_run(path) else _load_directory(path, source)
        if path.is_file():
            return _load_csv(path, source, reading)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not text"
        raise UserError(f"{getattr(error, 'filename', None) or path}: cannot be read: {reason}") from None
    except ValueError:  # a path that no file can have
        pass
    if source in published_runs.LOGS:
        return _load_log(source)
    raise UserError(f"{source!r}: no such run; give a run's directory, a log as CSV, or {' or '.join(published_runs.LOGS)}")


def _load_directory(path: Path, source: str) -> Run:
    config = saved_config(path)
    timeline = Timeline.of(config)
    rows = _some(read_run(path / "metrics.jsonl", config, timeline), path / "metrics.jsonl")
    kept = _kept(checkpoint_steps(path), timeline.steps_per_epoch)
    evaluations = _evaluations(path / "evaluations", timeline)
    headers = tuple(read_headers(path / "header.jsonl"))
    name = path.resolve().name
    return Run(
        name,
        source,
        rows,
        config,
        timeline,
        headers,
        kept,
        evaluations,
        notes=(*_history(name, headers), *_averaged(name, rows)),
    )


def _averaged(name: str, rows: Sequence[EpochRow]) -> list[str]:
    """A line about a run whose figures are of a weight average."""
    of_average = [row.epoch for row in rows if row.network == "average"]
    text = (
        f"{_label(name)}: from epoch {of_average[0]} on, figures of hold-out and test are of the weight average"
        if of_average
        else ""
    )
    last = rows[-1].raw_test_accuracy
    raw = "" if last is None else f"; after the last epoch the network itself has a test accuracy of {last:.2%}"
    return [text + raw] if text else []


def _history(name: str, headers: Sequence[Header]) -> tuple[str, ...]:
    """What a reader must know of a run that is not one recipe from random weights on."""
    # A branch that is the same recipe until there is as good as trained apart; the report draws where it left.
    origins = [header.origin.describe() for header in headers if header.origin and not header.origin.is_seamless]
    changes = [f"from update {header.first_step + 1} on: {'; '.join(header.changes)}" for header in headers if header.changes]
    return tuple(f"{_label(name)}: {_label(text)}" for text in [*origins[-1:], *dict.fromkeys(changes)])


def _load_log(name: str) -> Run:
    config = published_runs.executed(name)
    kept = tuple(Kept(file, epoch) for file, epoch in published_runs.PUBLISHED[name].files.items())
    return Run(name, name, tuple(published_runs.rows(name)), config, _on_the_logs_clock(config), kept=kept, log=name)


@functools.cache
def described(log: str) -> Timeline:
    """The recipe of a published log as its document describes it."""
    return _on_the_logs_clock(published_runs.described(log))


def _on_the_logs_clock(config: Config) -> Timeline:
    return Timeline(config, published_runs.STEPS_PER_EPOCH)


def load_all(sources: Sequence[str], patterns: Sequence[str] = (), reading: Reading | None = None) -> list[Run]:
    """Reads runs; those of other programs whose folder or path matches a pattern are seeds of one recipe.

    A pattern that none of the sources matches is looked for as paths: `pytorch-seed*`, or a folder of runs. Raises UserError.
    """
    runs = [load(source, reading) for source in sources]
    for pattern in patterns:
        matching = [index for index, run in enumerate(runs) if run.config is None and _matches(run.source, pattern)]
        if not matching:
            folder = user_path(pattern)
            inside = sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []
            more = [str(path) for path in inside if path.is_dir() or path.suffix in (".csv", ".jsonl")]
            more = more or sorted(glob.glob(str(folder)))
            if not more:
                raise UserError(f"{pattern}: matches none of the runs, and no path")
            runs += [load(path, reading) for path in more]
            matching = [index for index in range(len(runs) - len(more), len(runs)) if runs[index].config is None]
        if len({runs[index].in_percent for index in matching}) > 1:
            raise UserError(f"{pattern}: accuracies of some runs look like per cent, of others like fractions; say --unit")
        held_out = {runs[index].judge == "valid" for index in matching}
        for index in matching:
            run = dataclasses.replace(runs[index], pattern=pattern)
            runs[index] = run if len(held_out) == 1 else _without_validation(run)
    return runs


def _without_validation(run: Run) -> Run:
    rows = tuple(dataclasses.replace(row, valid_accuracy=None, valid_loss=None) for row in run.rows)
    note = f"some runs of {run.pattern} have no validation accuracy, so it counts for none"
    return dataclasses.replace(run, rows=rows, notes=(*run.notes, note))


def _matches(source: str, pattern: str) -> bool:
    path = os.path.normpath(source)
    return any(fnmatch.fnmatch(text, os.path.normpath(pattern)) for text in (path, os.path.basename(path)))


def _load_other(path: Path, source: str, reading: Reading | None) -> Run:
    log = other_runs.read(path, reading or Reading())
    name = path.resolve().name if path.is_dir() else path.stem
    return Run(name, source, _some(log.rows, path), notes=(log.note,), in_percent=log.in_percent, lost=log.lost)


def _load_csv(path: Path, source: str, reading: Reading | None) -> Run:
    try:
        text = published_runs.decode(path.read_bytes())
        columns, has_sign = published_runs.parse(text)
    except KeyError:
        return _load_other(path, source, reading)
    except csv.Error:
        raise UserError(f"{path}: is no log; the columns should be {', '.join(published_runs.COLUMNS)}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read: is not text") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    lines = _some(columns, path)
    curves = {name: {float(line["epoch"]): line[name] for line in lines} for name in published_runs.ACCURACIES}
    factor, note = other_runs.unit_of(path, curves, (reading or Reading()).unit, has_sign)
    for row in columns:
        row |= {name: row[name] / factor for name in curves}
    # In per cent, as these logs are written, nothing is to be said.
    rows = tuple(rows_from(columns, path))
    return Run(path.stem, source, rows, notes=(note,) * (factor == 1), in_percent=factor == 100)


def _some(rows: list[Row], path: Path) -> tuple[Row, ...]:
    if not rows:
        raise UserError(f"{path}: no epoch is finished yet")
    return tuple(rows)


def _kept(steps: Sequence[int], steps_per_epoch: int) -> tuple[Kept, ...]:
    """The complete checkpoints."""
    return tuple(Kept(str(step), None if step % steps_per_epoch else step // steps_per_epoch) for step in steps)


def _evaluations(folder: Path, timeline: Timeline) -> tuple[Evaluation, ...]:
    """The evaluations of checkpoints at the end of an epoch, in their order."""
    evaluations: list[Evaluation] = []
    for path in folder.glob("step-*[0-9].json"):
        record = files.read(path)
        known = files.read_correct(path.with_suffix(".npz"), record.splits["test"]["count"])
        if (record.epoch or 0) > timeline.epochs:
            raise UserError(f"{path}: epoch = {record.epoch}: the run has {timeline.epochs}; delete it, or evaluate again")
        if record.epoch is not None and record.step == record.epoch * timeline.steps_per_epoch:
            evaluations.append(Evaluation(record.epoch, record.to_dict(), *(known or (None, None))))
    return tuple(sorted(evaluations, key=lambda evaluation: evaluation.epoch))


def group(runs: Sequence[Run], names: Sequence[str] | None = None, recipes: Sequence[str] | None = None) -> tuple[Group, ...]:
    """Groups runs into recipes, in the order in which they come: the same beginning, and configuration but for the seed.

    Args:
      runs: the runs, as loaded.
      names: what to call the recipes; None: after their runs.
      recipes: which recipe each run is of, where that is known, as in a study; None: as the configurations say.

    Raises:
      UserError: a run comes twice, two runs are not independent, or runs are about different images; or the number of names
        is not that of recipes.
    """
    runs = _distinct(runs)
    check_same_images([(run.source, run.config) for run in runs if run.config is not None])
    _check_own_images(runs)
    members: dict[Any, list[Run]] = {}
    for index, run in enumerate(runs):
        together = members.setdefault(recipes[index] if recipes else _recipe_key(run), [])
        for other in together:
            if run.seed is not None and other.seed == run.seed:
                raise UserError(
                    f"{other.source} and {run.source}: the same recipe with the same seed, {run.seed}; give one of them"
                )
        together.append(run)
    if names is None:
        # The first name less its mention of a seed: session04-seed0 and session04-seed1 are session04.
        names = [_SEED.sub("", _given(together[0])).rstrip("/") or together[0].name for together in members.values()]
        numbers = [names[: index + 1].count(name) for index, name in enumerate(names)]
        names = [f"{name} ({number})" if names.count(name) > 1 else name for name, number in zip(names, numbers, strict=True)]
    if len(names) != len(members):
        listing = "; ".join(", ".join(run.name for run in together) for together in members.values())
        raise UserError(f"--names: {len(names)} given, but the runs are of {len(members)} recipes: {listing}")
    names = [_label(name) for name in names]
    if len(set(names)) < len(names):
        raise UserError("--names: every recipe should have its own name")
    return tuple(Group(name, tuple(together)) for name, together in zip(names, members.values(), strict=True))


def _given(run: Run) -> str:
    """The name of a run, or that of the runs that share its pattern."""
    if run.pattern is None:
        return run.name
    name = re.sub(r"\.(csv|jsonl)$", "", os.path.basename(os.path.normpath(run.pattern)))
    name = re.sub(r"[*?]+|\[.*?\]", "", name)
    return re.sub(r"[-_. ]*(seed)?[-_. ]*$", "", name) or run.name


def _distinct(runs: Sequence[Run]) -> list[Run]:
    """The runs under names that differ. Raises UserError for one that comes twice."""
    places = [run.log or os.path.realpath(run.source) for run in runs]
    for index, run in enumerate(runs):
        if places[index] in places[:index]:
            raise UserError(f"{run.source}: is given twice")
    runs = [dataclasses.replace(run, name=_label(run.name)) for run in runs]
    names = [run.name for run in runs]
    alike = [run.source for run in runs if names.count(run.name) > 1]
    return [dataclasses.replace(run, name=_short(run.source, alike)) if run.source in alike else run for run in runs]


def _short(source: str, others: Sequence[str]) -> str:
    """The end of a path, in whole folders, that tells it from the others: a/one/seed0 beside a/two/seed0 is one/seed0."""
    parts = [other.rstrip("/").split("/") for other in others if other != source]
    own = source.rstrip("/").split("/")
    for count in range(1, len(own)):
        if own[-count:] not in [other[-count:] for other in parts]:
            return "/".join(own[-count:])
    return source


def check_same_images(configs: Sequence[tuple[str, Config]]) -> None:
    """Raises UserError for runs, each a name and its configuration, whose test images are known to differ."""
    _check_alike([(name, _test_images(config)) for name, config in configs])


def _check_own_images(runs: Sequence[Run]) -> None:
    """Raises UserError for runs on images of one's own, which all go by one name, whose test images are known to differ."""
    own = [run for run in runs if run.config is not None and datasets.info(run.config.data).own and run.headers]
    digests = [(run.source, run.headers[-1].data_digests.get("test")) for run in own]
    _check_alike([(source, f"digest {digest}") for source, digest in digests if digest])


def _check_alike(known: Sequence[tuple[str, str]]) -> None:
    """Raises UserError unless all runs, each a name and its test images in words, have the same images."""
    for name, images in known[1:]:
        first, expected = known[0]
        if images != expected:
            raise UserError(
                f"{first} and {name}: were tested on different images ({expected}; {images}), so their accuracies "
                "cannot be compared"
            )


def _test_images(config: Config) -> str:
    """What a run with this configuration is tested on, in words that differ where the images do."""
    info = datasets.info(config.data)
    drawn = f", drawn from seed {config.data.embedded_seed}" if info.drawn else ""
    return f"{config.data.name}, {info.num_test:,} images{drawn}"


def recipe_keys(config: Config) -> dict[str, Any]:
    """The keys, by dotted name, that make a recipe: without seed, place, safety settings and augmentation levels not used."""
    tree = config.to_dict()
    used = levels_of(config.recipe.augmentation)
    tree["augmentation_levels"] = {name: level for name, level in tree["augmentation_levels"].items() if name in used}
    free = ("seed", *FREE_ON_RESUME)
    return {key: value for key, value in flatten(tree).items() if key not in free}


def _recipe_key(run: Run) -> Any:
    if run.pattern is not None:
        return "pattern", run.pattern
    if run.log or run.config is None or run.timeline is None:
        return run.source  # nothing says that two logs are of one recipe
    return json.dumps([run.timeline.steps_per_epoch, run.judge, run.beginning, recipe_keys(run.config)], sort_keys=True)
