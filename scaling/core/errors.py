"""The one exception a user is meant to read, and those of other libraries in one line."""


class UserError(Exception):
    """Wrong input: the message is one line that names the thing that is wrong and the remedy.

    Raised anywhere, before compute is spent; `scaling.cli.run` prints the message and exits with `exit_code`.
    """

    exit_code = 2


class BusyError(UserError):
    """A folder that another process is writing to."""


class TrainingError(UserError):
    """A run that cannot continue (NaN loss, too many unreadable images). What was saved so far is kept."""

    exit_code = 3


class TemporaryError(UserError):
    """A temporary failure (a host that is late, a bucket that does not respond): the same command resumes."""

    exit_code = 75  # EX_TEMPFAIL


def first_line(error: BaseException) -> str:
    """What an error of another library says, in one line; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
