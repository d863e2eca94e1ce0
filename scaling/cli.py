"""What every command shares: config files by bare name, one-line errors, exit codes.

Exit codes: 0 done, 1 a bug (with its traceback), 2 wrong input, 3 a run that cannot go on, 75 what passes (another
process of the run is gone or late, a bucket does not answer): start again, 143 stopped by SIGTERM after saving.
"""

import logging
import re
import sys
from collections.abc import Callable

from absl import app, flags
from absl import logging as absl_logging

from scaling.config import find_config
from scaling.errors import UserError
from scaling.parallel import hosts


def run(main: Callable[[list[str]], int | None]) -> None:
    """Runs `main(argv)` of a command; a UserError anywhere becomes one line on standard error and its exit code."""

    def guarded(argv: list[str]) -> int | None:
        try:
            return main(argv)
        except UserError as e:
            return _fail(e)
        except ImportError as e:
            if "gcsfs" not in str(e):
                raise
            return _fail(UserError("a path in a bucket (gs://) needs gcsfs: pip install gcsfs, or the extra [gcs]"))

    _log_to_stderr()
    hosts.choose_platform()
    hosts.keep_compilations()
    app.run(guarded, flags_parser=_parse)


def check_no_words(argv: list[str]) -> None:
    """Raises a UserError for words beside the flags, of a command that takes none: a flag may lack its dashes."""
    if len(argv) > 1:
        raise UserError(f"{' '.join(argv[1:])} is no flag; flags are --flag=value")


def define_change_flag() -> flags.FlagHolder[list[str]]:
    """Defines the flag that names what may differ from the run that is resumed."""
    return flags.DEFINE_list(
        "change", [], "Config fields that may differ from those a run was begun with, such as data.source."
    )


def define_process_flags() -> Callable[[], None]:
    """Defines the flags of a command that runs on several hosts. Returns what joins them, for after the checks."""
    coordinator = flags.DEFINE_string("coordinator", "", "host:port of process 0, `auto`, or empty for one process.")
    processes = flags.DEFINE_integer("processes", 1, "Number of processes, with --coordinator=host:port.")
    process = flags.DEFINE_integer("process", 0, "Which of them this is.")
    timeout = flags.DEFINE_integer("timeout", 300, "Seconds to wait for the other processes.", lower_bound=1)
    return lambda: hosts.start(coordinator.value, processes.value, process.value, timeout.value)


def _fail(error: UserError) -> int:
    hosts.failed()
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; a bare config name is looked up, and every way to get a flag wrong is one line and exit code 2."""
    try:
        return flags.FLAGS([_find(argument) for argument in _joined(argv)])
    except UserError as e:
        sys.exit(_fail(e))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
        sys.exit(_fail(UserError(_readable(str(e)))))


def _joined(argv: list[str]) -> list[str]:
    """`--config FILE` as `--config=FILE`."""
    at = [i for i in range(1, len(argv) - 1) if argv[i] in ("--config", "-config")]
    return [f"{x}={argv[i + 1]}" if i in at else x for i, x in enumerate(argv) if i - 1 not in at]


def _find(argument: str) -> str:
    match = re.fullmatch(r"--?config=([^:]+)(:.*)?", argument)
    return f"--config={find_config(match[1])}{match[2] or ''}" if match else argument


def _readable(message: str) -> str:
    """ml_collections' message for an unknown field, without its nested quotes."""
    match = re.search(r"'(\w+)\\?'.*Did you mean \\?\"(\w+)\\?\"", message, re.DOTALL)
    if match:
        return f"unknown config field {match[1]}; did you mean {match[2]}?"
    if bare := re.fullmatch(r"[\"']*(\w+)[\"']*", message):
        return f"unknown config field {bare[1]}; no other name is close to it"
    return " ".join(message.split())


def _log_to_stderr() -> None:
    """Plain lines from this package; warnings only from the libraries below it."""
    absl_logging.use_absl_handler()
    logging.getLogger().setLevel(logging.WARNING)
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = absl_logging.get_absl_handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: record.levelno >= logging.ERROR or "orbax" not in record.pathname)
    for ours in ("scaling", "__main__"):
        logging.getLogger(ours).setLevel(logging.INFO)
