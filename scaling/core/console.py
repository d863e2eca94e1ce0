"""Where tables and lines for people are printed."""

from rich.console import Console

_FILE_WIDTH = 200  # columns, where nobody's window says


def console(stderr: bool = False, soft_wrap: bool = False) -> Console:
    """rich's console without its guesses at colours. Tables keep all their columns in files and pipes.

    Args:
      stderr: print to standard error.
      soft_wrap: leave the breaking of long lines to the terminal.
    """
    made = Console(highlight=False, stderr=stderr, soft_wrap=soft_wrap)
    if not made.is_terminal:
        made.width = max(made.width, _FILE_WIDTH)
    return made
