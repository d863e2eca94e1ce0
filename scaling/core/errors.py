"""The exceptions whose messages a user reads, and errors of other libraries in one line."""


class UserError(Exception):
    """Wrong input: a one-line message that names the faulty value and the remedy.

    Raised anywhere, before compute is spent; `scaling.cli.run` prints the message and exits with `exit_code`.
    """

    exit_code = 2


class BusyError(UserError):
    """A folder that another process is writing to."""


class TrainingError(UserError):
    """A run that cannot continue (NaN loss, too many unreadable images). Everything saved so far is kept."""

    exit_code = 3


class TemporaryError(UserError):
    """A temporary failure (a host that is late, a bucket that does not respond): the same command resumes."""

    exit_code = 75  # EX_TEMPFAIL


def first_line(error: BaseException) -> str:
    """First line of the message of another library's error; the type of the error if it has no message."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
