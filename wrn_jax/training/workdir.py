"""The work directory of a run: what it is called, what it holds, whether a run may start or go on there, and who has it."""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from wrn_jax.config import Config, from_dict
from wrn_jax.config.agreement import changed_keys, first_differences
from wrn_jax.runtime import files
from wrn_jax.runtime.errors import UserError
from wrn_jax.runtime.text import first_few
from wrn_jax.training.records import SPLITS, Origin, Saved

LOCK = ".lock"
"""The file in a work directory that is locked by the process that has it, and names that process."""


def default_workdir(recipe: str) -> Path:
    """Where a run of the recipe of this name goes that is started now, when nobody says; another one at every call."""
    return Path("runs") / f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def holds_run(workdir: Path) -> bool:
    """Whether a run was started in `workdir`; the configuration is what it writes before any record or checkpoint."""
    return (workdir / "config.json").exists()


def holds_progress(workdir: Path) -> bool:
    """Whether there is something to lose: a complete checkpoint or a record. A start without has come to nothing."""
    records = workdir / "metrics.jsonl"
    return bool(checkpoint_steps(workdir)) or (records.exists() and records.stat().st_size > 0)


def holds_checkpoints(workdir: Path) -> bool:
    """Whether a run keeps its checkpoints there; what `publish` and `export` write has none."""
    return (workdir / "checkpoints").is_dir()


def checkpoint_steps(workdir: Path) -> list[int]:
    """The numbers of updates of the complete checkpoints: Orbax gives their folders plain numbers for names."""
    names = os.listdir(workdir / "checkpoints") if holds_checkpoints(workdir) else []
    return sorted(int(name) for name in names if re.fullmatch(r"[0-9]+", name))


def checkpoints_folder(workdir: Path, option: str = "") -> Path:
    """Where the checkpoints of a run lie. Raises UserError, which begins with the option that names it, if there are none."""
    if not holds_checkpoints(workdir):
        raise UserError(f"{option} {workdir}: holds no checkpoints".lstrip())
    return workdir / "checkpoints"


def saved_config(workdir: Path) -> Config:
    """The configuration of the run in `workdir`. Raises UserError if there is none."""
    path = workdir / "config.json"
    return from_dict(_read_object(path, f"{workdir}: holds no run (no readable config.json)"), str(path))


def saved_origin(workdir: Path) -> Origin | None:
    """What the run in `workdir` goes back to; None where it began with random weights. Raises UserError."""
    path = workdir / "origin.json"
    return Origin.from_dict(_read_object(path, f"{path}: cannot be read"), str(path)) if path.exists() else None


def _read_object(path: Path, unreadable: str) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError, with this text if it cannot be read."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(unreadable) from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: is not JSON") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: should be an object")
    return tree


def check_workdir(config: Config, workdir: Path, resume: bool) -> None:
    """Refuses to start anew over a run, or to continue a run in another way than it has gone so far. Raises UserError.

    A start that ended before its first checkpoint and its first record leaves nothing to lose: any other may take its place.
    A resumed run may change keys that only act from now on.
    """
    if resume and not holds_run(workdir):
        raise UserError(f"{workdir}: holds no run to resume")
    if not holds_progress(workdir):
        return
    if not holds_run(workdir):
        raise UserError(f"{workdir}: holds checkpoints or records, but no config.json; choose another --workdir")
    if not resume:
        raise UserError(f"{workdir}: holds a run already; continue it with --resume, or choose another --workdir")
    if different := _differences(saved_config(workdir), config, max([1, *checkpoint_steps(workdir)])):
        raise UserError(f"{workdir}: holds a run of another configuration: {different}")


def changes_since(saved: Saved, workdir: Path, config: Config) -> list[str]:
    """What a run changes that goes on from this checkpoint of its own, a line for each key.

    A checkpoint that does not say with which configuration it was saved, as of older versions, had that of `config.json`.
    """
    says = saved.metadata
    old = from_dict(says["config"], f"{workdir / 'checkpoints' / str(saved.step)}, config") if "config" in says else None
    return [f"{key} {change}" for key, change in changed_keys(old or saved_config(workdir), config).items()]


def check_checkpoints(saved: Iterable[Saved], workdir: Path, config: Config, digests: Mapping[str, str] | None = None) -> None:
    """Refuses checkpoints of another run or another step, whatever their folders are called. Raises UserError.

    Args:
      saved: the checkpoints; what one does not say, as older versions did not, is not compared.
      workdir: where they lie.
      config: of the run.
      digests: of the images that are here, see `loading.digests`, as far as they should be those of the run.
    """
    for checkpoint in saved:
        folder, says = workdir / "checkpoints" / str(checkpoint.step), checkpoint.metadata
        row = checkpoint.notes.metrics
        step = says.get("step", row.step if row else checkpoint.step)
        if step != checkpoint.step:
            raise UserError(f"{folder}: holds the state after {step} updates; give the folder its name again, or remove it")
        if "config" in says and (
            different := _differences(from_dict(says["config"], f"{folder}, config"), config, checkpoint.step)
        ):
            raise UserError(f"{folder}: is a checkpoint of another run: {different}; move it away")
        check_digests(says.get("data_digests") or {}, digests or {}, str(folder))


def check_digests(own: Mapping[str, str], here: Mapping[str, str], source: str) -> None:
    """Refuses images that are not those which `source` was trained with, by the digests that both have. Raises UserError."""
    for split in own.keys() & here.keys():
        if own[split] != here[split]:
            raise UserError(
                f"{source}: the {SPLITS[split]} images here are not those of the run, or in another order (digest "
                f"{here[split]}, was {own[split]}); --config.data.directory names the folder that the run read"
            )


def _differences(old: Config, new: Config, done: int) -> str:
    """The first keys that would have made the `done` updates other ones, with their values; empty where there are none."""
    changes = changed_keys(old, new)
    first = {key: step for key, step in first_differences(old, new).items() if step < done} if changes else {}
    acts = {key: f", which acts from update {step + 1} on, and {done} are done" if step else "" for key, step in first.items()}
    return first_few([f"{key} {changes[key]}{acts[key]}" for key in first])


@contextlib.contextmanager
def taken(config: Config, workdir: Path, resume: bool) -> Generator[Callable[[], None]]:
    """Takes the work directory for a run that starts or goes on.

    Arguments, yields and errors as `check_workdir` and `claimed`.
    """
    with claimed(workdir) as check:
        check_workdir(config, workdir, resume)  # again, now that nobody else writes to it
        yield check


def write_beginning(config: Config, workdir: Path, resume: bool, origin: Origin | None = None) -> None:
    """Writes what a run is: `origin.json` of one that starts, and `config.json`, last of all. Raises UserError.

    To be called once nothing can refuse the run any more: whoever resumes it later goes by what is written here.
    """
    try:
        if not resume:  # what is there is of a start that came to nothing
            for name in ("header.jsonl", "origin.json"):
                (workdir / name).unlink(missing_ok=True)
        if origin is not None and not resume:
            files.write_atomically(workdir / "origin.json", json.dumps(dataclasses.asdict(origin), indent=2) + "\n")
        files.write_atomically(workdir / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{workdir}: cannot be written to: {error.strerror}") from None


def holder(workdir: Path) -> str | None:
    """Which process has the work directory of a run; None if none has."""
    try:
        with open(workdir / LOCK, encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _written_holder(file)
    except OSError:  # no such file, or no locks there
        pass
    return None


@contextlib.contextmanager
def claimed(workdir: Path) -> Generator[Callable[[], None]]:
    """Makes the work directory, and holds it for this process until the end of the `with` block.

    The lock is the operating system's, so a dead process holds none. Linux has it on NFS too, between hosts; a host that dies
    there keeps it until the server gives it up, after a minute or two. Where a file system has no locks, nothing is held.

    Yields:
      A function that raises UserError once the directory was deleted or replaced.

    Raises:
      UserError: another process holds it, or it cannot be written to.
    """
    files.make_directory(workdir)
    path = workdir / LOCK
    try:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = _written_holder(file)
            raise UserError(f"{workdir}: is in use by {who}; wait for its end, or choose another folder") from None
        except OSError:  # no locks there
            pass
        with contextlib.suppress(OSError):  # a full disk; who it is only serves the message above
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()

        def check() -> None:
            try:
                is_there = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            except OSError:
                is_there = False
            if not is_there:
                raise UserError(f"{workdir}: was deleted or replaced while the run went on; nothing more is written there")

        yield check


def _written_holder(file: TextIO) -> str:
    return file.read(200).strip() or "another process"
