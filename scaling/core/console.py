"""The console on which tables and lines are printed."""

from rich.console import Console

_FILE_WIDTH = 200  # columns, if there is no terminal


def console(stderr: bool = False, soft_wrap: bool = False) -> Console:
    """rich's console without its guesses at colours. Tables keep all their columns in files and pipes.

    Args:
      stderr: print to standard error.
      soft_wrap: let the terminal wrap long lines.
    """
    made = Console(highlight=False, stderr=stderr, soft_wrap=soft_wrap)
    if not made.is_terminal:
        made.width = max(made.width, _FILE_WIDTH)
    return made
