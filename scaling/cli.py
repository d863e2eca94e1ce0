"""What every command shares: config files by bare name, one-line errors, exit codes.

Exit codes: 0 done, 1 a bug (with its traceback), 2 wrong input, 3 a run that cannot go on, 75 what passes (another
process of the run is gone or late, a bucket does not answer): start again, 130 stopped by Ctrl-C and 143 by SIGTERM,
after saving where there is something to save.
"""

import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from scaling import end_at_once
from scaling.config import find_config, nearest
from scaling.errors import TrainingError, UserError
from scaling.parallel import hosts
from scaling.paths import disk_error, user_path

EXTRAS = {"gcsfs": "gcs", "libtpu": "tpu", "wandb": "wandb", "rasterio": "geo", "shapely": "geo"}  # by package


def run(main: Callable[[list[str]], int | None], words: bool = False, resumes: bool = True) -> None:
    """Runs `main(argv)` of a command; whatever a user can mend becomes one line on standard error and an exit code.

    Args:
      main: the command.
      words: whether it takes arguments beside its flags.
      resumes: whether it keeps what is finished when it is interrupted, and the same command resumes behind that.
    """

    def guarded(argv: list[str]) -> int | None:
        try:
            if not words:
                check_no_words(argv)
            return main(argv)
        except UserError as e:
            return _fail(e)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, end_at_once)
            kept = "what is finished is kept, and the same command resumes behind it"
            print(f"interrupted; {kept if resumes else 'no file is left unfinished'}", file=sys.stderr)
            return hosts.INTERRUPTED
        except BrokenPipeError:  # whoever reads has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except ImportError as e:
            package = next((name for name in EXTRAS if name in (e.name, *str(e).split())), "")
            if not package:
                raise
            return _fail(UserError(_missing(package)))
        except Exception as e:
            if not (refused := disk_error(e)):
                raise
            where = f"{refused.filename}: " if refused.filename else ""
            why = f"{where}{refused.strerror}; make room or get permission there, and start again"
            return _fail(TrainingError(why))

    if signal.getsignal(signal.SIGINT) is end_at_once:  # so far there was nothing to keep
        signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.excepthook, sys.unraisablehook = _in_thread, _in_callback
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names of files may be no text
    _log_to_stderr()
    hosts.choose_platform()
    hosts.keep_compilations()
    app.run(guarded, flags_parser=_parse)


def _in_thread(args: threading.ExceptHookArgs) -> None:
    """What a disk refuses is said once, by the command itself."""
    if not (args.exc_value and disk_error(args.exc_value)):
        threading.__excepthook__(args)


def _in_callback(args: "sys.UnraisableHookArgs") -> None:
    """Writes of tensorstore that end after one of them has failed find the loop of orbax closed: said once, too."""
    if not (args.exc_value and (disk_error(args.exc_value) or "Event loop is closed" in str(args.exc_value))):
        sys.__unraisablehook__(args)


def _missing(package: str) -> str:
    extra = EXTRAS[package]
    what = "a path in a bucket (gs://)" if extra == "gcs" else "this"
    return f"{what} needs {package}: pip install {package}, or the extra [{extra}]"


class _PathParser(flags.ArgumentParser[str]):
    """`~` is the home; what is neither local nor in a bucket is refused."""

    def __init__(self, flag: str):
        self._flag = flag

    def parse(self, argument: str) -> str:
        return str(user_path(self._flag, argument)) if argument else argument


def define_path(name: str, default: str | None, help: str) -> flags.FlagHolder[Any]:
    """Defines a flag that takes a path, see `scaling.paths.user_path`."""
    return flags.DEFINE(_PathParser(name), name, default, help, serializer=flags.ArgumentSerializer())


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
    threading.excepthook = lambda _: None  # of threads that lose what they were writing to
    sys.unraisablehook = lambda _: None
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; a bare config name is looked up, and every way to get a flag wrong is one line and exit code 2."""
    try:
        return flags.FLAGS([_find("--help" if argument == "-h" else argument) for argument in _joined(argv)])
    except UserError as e:
        sys.exit(_fail(e))
    except KeyboardInterrupt:
        end_at_once()
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
        sys.exit(_fail(UserError(_of_config_file(e) or _unknown_field(str(e)) or _readable(str(e)))))
    except Exception as e:  # a config file is a program: it raises what it likes
        if not (message := _of_config_file(e)):
            raise
        sys.exit(_fail(UserError(message)))


def _of_config_file(error: Exception) -> str:
    """Where and how a config file failed; nothing for an error that comes from elsewhere."""
    files = [argument.partition("=")[2] for argument in map(_find, _joined(sys.argv)) if "-config=" in argument[:9]]
    file = Path(files[0].partition(":")[0]) if files else None
    if file and "no attribute 'get_config'" in str(error):
        return f"--config={file} has no get_config(); it is a Python file whose get_config() returns config_dict(…)"
    if isinstance(error, SyntaxError) and file and error.filename and Path(error.filename).name == file.name:
        return f"--config={file}, line {error.lineno}: {error.msg}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if file and Path(frame.filename).name == file.name:
            return f"--config={file}, line {frame.lineno}: {type(error).__name__}: {error}"
    return ""


def _joined(argv: list[str]) -> list[str]:
    """`--config FILE` as `--config=FILE`."""
    at = [i for i in range(1, len(argv) - 1) if argv[i] in ("--config", "-config")]
    return [f"{x}={argv[i + 1]}" if i in at else x for i, x in enumerate(argv) if i - 1 not in at]


def _find(argument: str) -> str:
    if given := re.fullmatch(r"--?config=([\w+.-]+://.*)", argument, re.DOTALL):
        raise UserError(f"--config={given[1]}: a config file is read from this machine; copy it here")
    match = re.fullmatch(r"--?config=([^:]+)(:.*)?", argument)
    return f"--config={find_config(os.path.expanduser(match[1]))}{match[2] or ''}" if match else argument


def _unknown_field(message: str) -> str:
    """What there is where a config field was asked for that there is not; nothing where this is not what failed."""
    if not (bare := re.fullmatch(r"[\"']*(\w+)[\"']*", message)) or "config" not in flags.FLAGS:
        return ""
    asked = [argument.partition("=")[0].partition("config.")[2] for argument in sys.argv[1:]]
    path = next((path for path in asked if bare[1] in path.split(".")), "")
    file = next((x.partition("=")[2] for x in _joined(sys.argv) if re.match(r"--?config=", x)), "")
    if not path or not file:
        return ""
    name, _, argument = file.partition(":")
    level: Any = flags.FLAGS["config"].parser.parse(f"{find_config(name)}{argument and ':' + argument}")
    elsewhere = [found for found in _paths(level) if found.split(".")[-1] == bare[1]]
    if elsewhere:
        return f"unknown config field {path}; did you mean {' or '.join(elsewhere)}?"
    for parent in path.split(".")[: path.split(".").index(bare[1])]:
        level = level[parent]
    return f"unknown config field {path}{nearest(bare[1], list(level))}"


def _paths(fields: Any, prefix: str = "") -> list[str]:
    """Of all config fields below."""
    found = []
    for name, value in fields.items():
        found += _paths(value, f"{prefix}{name}.") if hasattr(value, "items") else [f"{prefix}{name}"]
    return found


def _readable(message: str) -> str:
    """ml_collections' message for an unknown field, without its nested quotes."""
    match = re.search(r"'(\w+)\\?'.*Did you mean \\?\"(\w+)\\?\"", message, re.DOTALL)
    if match:
        return f"unknown config field {match[1]}; did you mean {match[2]}?"
    return " ".join(message.split())


def _log_to_stderr() -> None:
    """Plain lines from this package; warnings only from the libraries below it."""
    absl_logging.use_absl_handler()
    logging.getLogger().setLevel(logging.WARNING)
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = absl_logging.get_absl_handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    # what orbax cannot write it says from each of its threads, and then raises
    handler.addFilter(lambda record: record.levelno > logging.ERROR or "orbax" not in record.pathname)
    for ours in ("scaling", "__main__"):
        logging.getLogger(ours).setLevel(logging.INFO)
