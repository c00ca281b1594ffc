"""The exceptions that end a command in one line, each with the exit code that it gives."""


class UserError(Exception):
    """An error the user can cause; its text is one line, shown without a traceback."""

    code = 2


class Diverged(Exception):
    """The numbers of a run are no longer finite; the text is one line.

    Attributes:
      rollbacks: how often the run had gone back to a checkpoint before.
      back_to: the finished updates of those checkpoints; 0 is the beginning.
    """

    code = 3

    def __init__(self, text: str, rollbacks: int = 0, back_to: tuple[int, ...] = ()):
        super().__init__(text)
        self.rollbacks, self.back_to = rollbacks, back_to


class Interrupted(Exception):
    """A run was asked to stop and has saved everything; the text is one line."""

    code = 75  # EX_TEMPFAIL of sysexits.h: try again


class Abandoned(Exception):
    """Another process of the run is gone; the text is one line."""

    code = 4
