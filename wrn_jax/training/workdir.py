"""The work directory of a run: what it is called, what it holds, whether a run may start or go on there, and who has it."""

import contextlib
import fcntl
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path

from wrn_jax.config import FREE_ON_RESUME, Config, flatten, from_dict
from wrn_jax.runtime import files
from wrn_jax.runtime.errors import UserError
from wrn_jax.training.checkpoints import Saved
from wrn_jax.training.records import SPLITS


def default_workdir(recipe: str) -> Path:
    """Where a run of the recipe of this name goes that is started now, when nobody says; another one at every call."""
    return Path("runs") / f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def holds_run(workdir: Path) -> bool:
    """Whether a run was started in `workdir`; the configuration is what it writes first."""
    return (workdir / "config.json").exists()


def checkpoint_steps(workdir: Path) -> list[int]:
    """The numbers of updates of the complete checkpoints: Orbax gives their folders plain numbers for names."""
    folder = workdir / "checkpoints"
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(int(name) for name in names if re.fullmatch(r"[0-9]+", name))


def saved_config(workdir: Path) -> Config:
    """The configuration of the run in `workdir`. Raises UserError if there is none."""
    path = workdir / "config.json"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{workdir}: holds no run (no readable config.json)") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: is not JSON") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: should be an object")
    return from_dict(tree, str(path))


def check_workdir(config: Config, workdir: Path, resume: bool) -> None:
    """Refuses to start anew over a run, or to continue a run of another configuration. Raises UserError.

    A start that ended before its first checkpoint and its first record leaves nothing to lose: any other may take its place.
    """
    if resume and not holds_run(workdir):
        raise UserError(f"{workdir}: holds no run to resume")
    records = workdir / "metrics.jsonl"
    if not checkpoint_steps(workdir) and not (records.exists() and records.stat().st_size):
        return
    if not holds_run(workdir):
        raise UserError(f"{workdir}: holds checkpoints or records, but no config.json; choose another --workdir")
    if not resume:
        raise UserError(f"{workdir}: holds a run already; continue it with --resume, or choose another --workdir")
    if different := _differences(saved_config(workdir), config):
        raise UserError(f"{workdir}: holds a run of another configuration: {different}")


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
        if "config" in says and (different := _differences(from_dict(says["config"], f"{folder}, config"), config)):
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


def _differences(old: Config, new: Config) -> str:
    """The first keys in which the configurations of a run may not differ, with their values; empty where there are none."""
    was, now = flatten(old.to_dict()), flatten(new.to_dict())
    different = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key) and key not in FREE_ON_RESUME)
    shown = "; ".join(f"{key} was {was.get(key)}, is {now.get(key)}" for key in different[:3])
    return f"{shown}; and {len(different) - 3} more" if len(different) > 3 else shown


@contextlib.contextmanager
def begun(config: Config, workdir: Path, resume: bool) -> Generator[Callable[[], None]]:
    """Starts a run, or goes on with it: takes the work directory and writes `config.json`, in this order.

    Arguments, yields and errors as `check_workdir` and `claimed`.
    """
    with claimed(workdir) as check:
        check_workdir(config, workdir, resume)  # again, now that nobody else writes to it
        try:
            if not resume:
                (workdir / "header.jsonl").unlink(missing_ok=True)  # of a start that came to nothing
            files.write_atomically(workdir / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")
        except OSError as error:
            raise UserError(f"{workdir}: cannot be written to: {error.strerror}") from None
        yield check


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
    path = workdir / ".lock"
    try:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip() or "another process"
            raise UserError(f"{workdir}: is in use by {holder}; wait for its end, or choose another --workdir") from None
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
