"""The one exception that means "the user can mend this"."""


class UserError(Exception):
    """An error the user can cause; its text is one line, shown without a traceback, exit code 2."""


class Diverged(Exception):
    """The numbers of a run are no longer finite; the text is one line, exit code 3."""


class Interrupted(Exception):
    """A run was asked to stop and has saved everything; the text is one line, exit code 75."""
