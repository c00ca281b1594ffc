"""Runs what a study lacks, each run by the commands that people use, as many at a time as there are places.

Everything that is known of a run lies in its folder, so that a study may end at any moment and go on by another start.
"""

import collections
import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from wrn_jax.runtime import console
from wrn_jax.runtime.errors import Interrupted, UserError
from wrn_jax.runtime.signals import StopRequest
from wrn_jax.studies import display
from wrn_jax.studies.progress import Progress
from wrn_jax.studies.runs import DIVERGED, Member, command_line, is_trained, last_line
from wrn_jax.training.records import EpochRow, read_rows
from wrn_jax.training.workdir import holder, holds_progress

POLL = 0.2
"""Seconds between two looks at the processes."""

LOOK = 2.0
"""Seconds between two looks at the records of the runs at work."""

MOST_SHOWN = 12
"""Runs at work that have a line in a terminal."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one run at a time finds room: what is set in its environment, and the CPU cores that it may use, None for all."""

    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cores: frozenset[int] | None = None

    @contextlib.contextmanager
    def entered(self) -> Generator[dict[str, str]]:
        """The environment of a process that is started here; it inherits the cores."""
        with contextlib.ExitStack() as stack:
            if self.cores is not None:
                before = os.sched_getaffinity(0)  # of this thread
                os.sched_setaffinity(0, self.cores)
                stack.callback(os.sched_setaffinity, 0, before)
            yield os.environ | dict(self.environment)


class Process(Protocol):
    """A command at work, as `subprocess.Popen` has it."""

    @property
    def returncode(self) -> int | None:
        """As `poll` last found it."""
        ...

    def poll(self) -> int | None:
        """Its exit code, None as long as it has not ended."""
        ...

    def terminate(self) -> None:
        """Has it save and end."""
        ...


Start = Callable[[Sequence[str], Path, Place], Process]
"""What an engine is: starts a command, its arguments as `Member.train` gives them, with its output at the end of a file."""


@dataclasses.dataclass(eq=False)
class Task:
    """A run at work: its place, the command it is at, the process, where in the log its output begins, and recorded epochs."""

    member: Member
    place: Place
    arguments: list[str]
    process: Process
    log_begin: int = 0
    rows: Sequence[EpochRow] = ()


def start(arguments: Sequence[str], log: Path, place: Place) -> subprocess.Popen:
    """Starts a command of the package as a process, its output at the end of `log`. Raises OSError.

    It is in a process group of its own: a Ctrl-C reaches the study, which passes it on once.
    """
    with open(log, "ab") as file, place.entered() as environment:
        return subprocess.Popen(
            command_line([*arguments]),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
            process_group=0,
        )


def execute(
    progress: Progress,
    places: Sequence[Place],
    operations: Mapping[str, float],
    report: Callable[[], None],
    engine: Start,
) -> None:
    """Runs all that is missing.

    Args:
      progress: how far the runs are; brought up to date.
      places: each holds one run at a time.
      operations: of an epoch, by recipe, from which times are estimated.
      report: writes the report; called after every finished run but the last.
      engine: starts their commands, here or elsewhere.

    Raises:
      Interrupted: a signal came; the runs at work have saved and ended.
    """
    waiting = collections.deque(member for member in progress.members if not progress.is_settled(member.name))
    free, tasks = list(places), list[Task]()
    watched: set[str] = set()
    stopping, is_due = "", False
    looked_at = 0.0
    with showing(min(len(places), MOST_SHOWN) + 1) as shown, StopRequest() as stop:
        while tasks or (waiting and not stopping):
            if not stopping and (stopping := stop.received(0)):
                console.say(f"{stopping}: the runs at work save and end; a second signal ends at once")
                for task in tasks:
                    task.process.terminate()
            while free and waiting and not stopping and (member := next_of(waiting, watched, progress)):
                waiting.remove(member)
                if task := begin(member, free[0], progress, engine):
                    free.pop(0)
                    tasks.append(task)
            if is_due and not stopping and (tasks or waiting):
                report()  # it takes seconds, so the next run has begun
            is_due = False
            for task in [task for task in tasks if task.process.poll() is not None]:
                tasks.remove(task)
                # A scheduler may signal the runs as well, which then end before the study has seen its own signal.
                further = end(task, progress, bool(stop.received(0)), engine)
                if further:
                    tasks.append(further)
                    continue
                free.append(task.place)
                if task.member.name in progress.done:
                    run = progress.runs[task.member.name]
                    assert run is not None  # since it is done
                    console.say(display.finished_line(task.member, run, len(progress.done), len(progress.members)))
                is_due = True
            if time.monotonic() - looked_at > LOOK:
                looked_at = time.monotonic()
                shown.show(lines(progress, tasks, operations, len(places)))
            time.sleep(POLL)
        stopping = stopping or stop.received(0)
        if stopping and len(progress.done) + len(progress.failures) < len(progress.members):
            raise Interrupted(f"{stopping}: the runs are saved; the same command goes on with them")


def next_of(waiting: Sequence[Member], watched: set[str], progress: Progress) -> Member | None:
    """The next run that waits for no trunk and that no process has; one may have outlived its study, and ends its run alone."""
    for member in waiting:
        if waits(member, progress):
            continue
        who = holder(member.workdir)
        if who is None:
            return member
        if member.name not in watched:
            watched.add(member.name)
            console.say(f"{member.name}: is in the hands of {who}; waiting for its end")
    return None


def waits(member: Member, progress: Progress) -> bool:
    """Whether the checkpoint that a run is to go on from is still to come. If it never will, the run begins by itself."""
    trunk = member.trunk
    if trunk is None or member.can_branch() or holds_progress(member.workdir):
        return False
    return not progress.is_settled(trunk.name) and not is_trained(progress.runs.get(trunk.name))


def begin(member: Member, place: Place, progress: Progress, engine: Start) -> Task | None:
    """Starts the command that a run needs next; None if it needs none, or cannot be started, which is told and written down."""
    try:
        arguments = progress.look_at(member)
        if arguments is None:
            return None
        if arguments[0] == "train" and (change := member.recipe.change()):
            raise UserError(f"{member.recipe.file}: was changed since the study began: {change}")
        member.forgive()
        member.log.parent.mkdir(parents=True, exist_ok=True)
        log_begin = member.log.stat().st_size if member.log.exists() else 0
        return Task(member, place, arguments, engine(arguments, member.log, place), log_begin)
    except (UserError, OSError) as error:
        progress.fail(member, UserError.code, str(error))
        return None


def end(task: Task, progress: Progress, stopping: bool, engine: Start) -> Task | None:
    """What follows the end of a command: the next one that the run needs, or None. A failure is told and written down."""
    member, code = task.member, task.process.returncode
    assert code is not None  # since it has ended
    if code == 0:
        try:
            arguments = progress.look_at(member)
        except UserError as error:
            return progress.fail(member, UserError.code, str(error))
        if arguments is None or stopping:
            return None
        if arguments == task.arguments:
            return progress.fail(member, UserError.code, "its command ended well, and left undone what it was for")
        return begin(member, task.place, progress, engine)
    if stopping and code != DIVERGED:
        return None
    begin_of_line = f"{task.arguments[0]}: "
    said = last_line(member.log, lambda line: line.startswith(begin_of_line), task.log_begin)
    said = said or last_line(member.log, begin=task.log_begin)
    if code < 0:
        hint = " (too little memory?)" if code == -signal.SIGKILL else ""
        said = f"was killed by {signal.Signals(-code).name}{hint}"
    if code == 2 and "--branch-from" in task.arguments and not holds_progress(member.workdir):  # a damaged checkpoint, say
        console.say(f"{member.name}: cannot go on from another run: {said}; it begins by itself")
        return begin(dataclasses.replace(member, trunk=None, fork=None), task.place, progress, engine)
    return progress.fail(member, code, said)


def lines(progress: Progress, tasks: Sequence[Task], operations: Mapping[str, float], jobs: int) -> list[str]:
    """The study in a line, and each run at work in one."""
    for task in tasks:
        if task.arguments[0] == "train":
            with contextlib.suppress(UserError):
                task.rows = read_rows(task.member.workdir / "metrics.jsonl")
    at_work = {task.member.name: task.rows for task in tasks}
    rows: dict[str, list[EpochRow]] = {member.recipe.name: [] for member in progress.members}
    todo: list[tuple[str, str, int]] = []
    for member in progress.members:
        run = progress.runs.get(member.name)
        own = at_work.get(member.name) or (run.rows if run else ())
        rows[member.recipe.name] += own
        if not is_trained(run) and not progress.is_settled(member.name):
            shared = member.fork.epochs if member.fork else 0
            todo.append((member.name, member.recipe.name, member.recipe.epochs - max(len(own), shared)))
    left = display.seconds_left(rows, todo, operations, jobs)
    failed = f", {len(progress.failures)} failed" if progress.failures else ""
    time_left = "" if left is None else f"; {console.format_duration(left)} left"
    texts = [display.at_work(task.member, task.rows, task.member.recipe.epochs, task.arguments[0]) for task in tasks]
    return [f"{len(progress.done)} of {len(progress.members)} runs are done{failed}{time_left}", *texts]


@contextlib.contextmanager
def showing(count: int) -> Generator[display.Display]:
    """The live display of the study, removed in the end."""
    shown = display.Display(count)
    try:
        yield shown
    finally:
        shown.close()
