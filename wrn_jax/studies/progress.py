"""How far a study is: what the folders of its runs hold and which failed; by this it goes on and is reported."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

from wrn_jax.report.runs import Run
from wrn_jax.runtime import console
from wrn_jax.runtime.errors import UserError
from wrn_jax.studies.runs import DIVERGED, Failure, Member, load, missing


@dataclasses.dataclass(eq=False)
class Progress:
    """A study under way.

    Attributes:
      members: all its runs, in the order in which they are to run.
      corruptions: whether corrupted images are to be evaluated too.
      runs: as far as they are, by name; None, or not there, without a finished epoch.
      failures: of those that failed, by name.
      done: names of those that lack nothing.
    """

    members: Sequence[Member]
    corruptions: bool = False
    runs: dict[str, Run | None] = dataclasses.field(default_factory=dict)
    failures: dict[str, Failure] = dataclasses.field(default_factory=dict)
    done: set[str] = dataclasses.field(default_factory=set)

    def look_at(self, member: Member) -> list[str] | None:
        """Looks at the folder of a run; the arguments of the command that it needs next. Raises UserError for a damaged one."""
        run = self.runs[member.name] = load(member)
        arguments = missing(member, run, self.corruptions)
        if arguments is None:
            self.done.add(member.name)
            self.failures.pop(member.name, None)
            member.forgive()
        return arguments

    def fail(self, member: Member, code: int, text: str) -> None:
        """Tells that a run failed, and writes it down."""
        self.failures[member.name] = member.fail(code, text)
        how = "diverged" if code == DIVERGED else "failed"
        console.say(f"{member.name}: {how}: {text} (exit code {code}; its output: {member.log}); going on with the others")

    def is_settled(self, name: str) -> bool:
        """Whether nothing is left to do for a run: it is done, or it failed."""
        return name in self.done or name in self.failures

    def begun(self) -> Iterator[tuple[Member, Run]]:
        """The runs that have a finished epoch."""
        for member in self.members:
            if run := self.runs.get(member.name):
                yield member, run

    @property
    def finished(self) -> set[str]:
        """The names of the runs that have come to their end, whether evaluated or not."""
        return {member.name for member, run in self.begun() if run.finished}

    @property
    def is_over(self) -> bool:
        """Whether no run is left: all have come to their end, or diverged and would again."""
        diverged = {name for name, failure in self.failures.items() if failure.code == DIVERGED}
        return {member.name for member in self.members} <= self.finished | diverged

    @property
    def complete_seeds(self) -> int:
        """How many seeds, from 0 on, every recipe has come to an end with, good or bad."""
        seeds, ended = {member.seed for member in self.members}, self.finished | self.failures.keys()
        return min({member.seed for member in self.members if member.name not in ended}, default=len(seeds))


def look(members: Sequence[Member], corruptions: bool) -> Progress:
    """How far the runs of a study are. A run that diverged would again; one that failed otherwise may be tried anew."""
    progress = Progress(members, corruptions)
    for member in members:
        failure = member.failure()
        try:
            progress.look_at(member)
        except UserError as error:
            progress.fail(member, UserError.code, str(error))
            continue
        if failure and failure.code == DIVERGED and member.name not in progress.done:
            progress.failures[member.name] = failure
    return progress


def count_done(members: Sequence[Member]) -> int:
    """How many runs lack nothing, those that cannot be read left out; tells and writes nothing."""
    done = 0
    for member in members:
        with contextlib.suppress(UserError):
            done += missing(member, load(member), False) is None
    return done
