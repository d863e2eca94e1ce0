"""The shared parts of all commands: their form, one-line errors, exit codes.

A command is a module with

    def define_flags(define: cli.Define) -> None:
        define.path("output", None, "File to write.")

    @cli.command(define_flags)
    def main(argv: list[str], flags: cli.Flags) -> int | None:
        print(flags.output)

    if __name__ == "__main__":
        cli.run(main)

Importing it defines no flags: `cli.call("scaling.NAME", ["--output=FILE"])` runs it inside another program.

Exit codes: 0 done, 1 a bug (with its traceback), 2 wrong input, 3 a run that cannot continue, 75 a temporary
failure (a peer process died or is late, a bucket does not respond): run the same command again, 130 stopped by
Ctrl-C and 143 by SIGTERM, after saving if there is something to save.
"""

import atexit
import contextlib
import dataclasses
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from absl import app
from absl import flags as absl_flags
from absl import logging as absl_logging

from scaling import end_at_once
from scaling.core.buckets import bucket_error
from scaling.core.config import PRINT_CONFIG
from scaling.core.errors import TrainingError, UserError
from scaling.core.files import disk_error
from scaling.core.flags import Define, Flags, config_fields, defined, parse
from scaling.core.paths import unmade_on_failure
from scaling.core.wording import in_command
from scaling.parallel import hosts

EXTRAS = {
    "gcsfs": "gcs",
    "libtpu": "tpu",
    "wandb": "wandb",
    "huggingface_hub": "hub",
    "rasterio": "geo",
    "shapely": "geo",
}  # by package
BROKEN_PIPE = 128 + signal.SIGPIPE
_WIDEST = 40  # characters; a longer cell shifts the cells to its right


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: its `main(argv, flags)`, where argv[1:] are the positional arguments, and its properties
    (`command`).
    """

    main: Callable[[list[str], Flags], int | None]
    define: Callable[[Define], None]
    words: bool
    resumes: bool

    def __call__(self, argv: list[str], flags: Flags) -> int | None:
        if not self.words:
            check_no_words(argv)
        if PRINT_CONFIG in flags and flags[PRINT_CONFIG].value:
            _print_config(flags)
            return 0
        return self.main(argv, flags)

    def flags(self) -> Flags:
        """The flags of the command, not yet parsed."""
        return defined(self.define, sys.modules[self.main.__module__].__doc__ or "")

    def parsed(self, argv: list[str]) -> tuple[list[str], Flags]:
        """Positional arguments and parsed flags; raises a UserError for wrong ones."""
        flags = self.flags()
        return parse(flags, argv), flags


def command(
    define_flags: Callable[[Define], None], words: bool = False, resumes: bool = True
) -> Callable[[Callable[[list[str], Flags], int | None]], Command]:
    """Makes a command of `main(argv, flags)`.

    Args:
      define_flags: defines the flags of the command.
      words: whether it takes positional arguments.
      resumes: whether finished work is kept on interruption and the same command resumes after it.
    """
    return lambda main: Command(main, define_flags, words, resumes)


def run(main: Command) -> None:
    """Runs a command as this process and exits; an error that the user can correct is one line on standard error."""
    _prepare()
    hosts.choose_platform()
    hosts.keep_compilations()
    flags = main.flags()

    def parser(argv: list[str]) -> list[str]:
        try:
            words = parse(flags, argv)
        except UserError as e:
            sys.exit(_fail(e))
        except KeyboardInterrupt:
            end_at_once()
        return words

    def guarded(argv: list[str]) -> int | None:
        result, code = _guarded(main, lambda: main(argv, flags))
        if code == BROKEN_PIPE:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code == hosts.INTERRUPTED:
            _leave(code)
        return result if code is None else code

    app.run(guarded, flags_parser=parser)


def _leave(code: int) -> NoReturn:
    """Ends the process after its exit handlers, but neither joins threads nor finalises the interpreter: threads of an
    interrupted compiler are still running and would crash.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


def call(main: Command | str, argv: list[str]) -> int:
    """Runs a command in this process and returns its exit code. A bug is raised.

    Signal handlers, logging, the streams and `sys.argv` are restored afterwards.

    Args:
      main: the command, or the name of its module, such as scaling.describe.
      argv: its arguments.
    """
    made: Command = importlib.import_module(main).main if isinstance(main, str) else main
    with _as_before():
        sys.argv = [sys.modules[made.main.__module__].__file__ or "", *argv]
        _prepare()
        try:
            result, code = _guarded(made, lambda: made(*made.parsed(sys.argv)))
        except SystemExit as e:  # raised by --help
            return e.code if isinstance(e.code, int) else int(e.code is not None)
        return code if code is not None else result or 0


def _guarded(main: Command, act: Callable[[], Any]) -> tuple[Any, int | None]:
    """Calls `act`. Returns its result and None, or None and an exit code if it failed or was interrupted."""
    try:
        with unmade_on_failure(), in_command():
            return act(), None
    except UserError as e:
        return None, _fail(e)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, end_at_once)
        kept = "what is finished is kept, and the same command resumes behind it"
        print(f"interrupted; {kept if main.resumes else 'no file is left unfinished'}", file=sys.stderr)
        return None, hosts.INTERRUPTED
    except BrokenPipeError:  # the reader of the output has closed it
        return None, BROKEN_PIPE
    except ImportError as e:
        package = next((name for name in EXTRAS if name in (e.name, *str(e).split())), "")
        if not package:
            raise
        return None, _fail(UserError(_missing(package)))
    except Exception as e:
        if unanswered := bucket_error(e):
            return None, _fail(unanswered)
        if not (refused := disk_error(e)):
            raise
        where = f"{refused.filename}: " if refused.filename else ""
        why = f"{where}{refused.strerror}; make room or get permission there, and start again"
        return None, _fail(TrainingError(why))


def _prepare() -> None:
    """Sets up signal handlers, hooks, streams and logging for a command."""
    if signal.getsignal(signal.SIGINT) is end_at_once:  # until now there was nothing to save
        signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.excepthook, sys.unraisablehook = _in_thread, _in_callback
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # the streams of a notebook have no such method
            stream.reconfigure(errors="backslashreplace")  # file names may not be valid text
    _log_to_stderr()


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Restores what `_prepare`, a command and its flags change in the process."""
    handler, streams = absl_logging.get_absl_handler(), (sys.stdout, sys.stderr)
    loggers = [logging.getLogger(name) for name in (None, "absl", "asyncio", "scaling", "__main__")]
    argv, hooks, errors = sys.argv, (threading.excepthook, sys.unraisablehook), [stream.errors for stream in streams]
    levels, handlers = [logger.level for logger in loggers], list(logging.root.handlers)
    python = handler.python_handler
    said = (python.formatter, list(handler.filters), python.stream)
    shared = [(flag, flag.value, flag.present, flag.using_default_value) for flag in _shared_flags()]
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    python.stream = sys.stderr
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, how in signals.items():
                signal.signal(number, how)
        for flag, *state in shared:
            flag.value, flag.present, flag.using_default_value = state
        sys.argv, (threading.excepthook, sys.unraisablehook) = argv, hooks
        python.formatter, handler.filters, python.stream = said
        logging.root.handlers = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for stream, error in zip(streams, errors, strict=True):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors=error)


def _shared_flags() -> list[Any]:
    return [absl_flags.FLAGS[name] for name in absl_flags.FLAGS]


def _in_thread(args: threading.ExceptHookArgs) -> None:
    """Hook for exceptions in threads: silent about disk errors, which the command itself reports once."""
    if not (args.exc_value and disk_error(args.exc_value)):
        threading.__excepthook__(args)


def _in_callback(args: "sys.UnraisableHookArgs") -> None:
    """Hook for unraisable exceptions: silent about disk errors, and about writes of tensorstore that end after orbax
    has closed its event loop because another write failed.
    """
    if not (args.exc_value and (disk_error(args.exc_value) or "Event loop is closed" in str(args.exc_value))):
        sys.__unraisablehook__(args)


def _missing(package: str) -> str:
    extra = EXTRAS[package]
    what = {"gcs": "a path in a bucket (gs://)", "hub": "a path in the hub (hf://)"}.get(extra, "this")
    return f"{what} needs {package}: pip install {package}, or the extra [{extra}]"


def check_no_words(argv: list[str]) -> None:
    """Raises a UserError for positional arguments to a command that takes none, usually a flag without its dashes."""
    if len(argv) > 1:
        raise UserError(f"{' '.join(argv[1:])}: is not a flag; write it as --flag=value")


def require(flags: Flags, *needed: str) -> None:
    """Raises a UserError for a flag that is not given; `needed` are flags with what they take, as `config=FILE`."""
    for flag in needed:
        name = flag.partition("=")[0]
        if flags[name].value is None or flags[name].value == "":
            *first, last = (f"--{each}" for each in needed)
            raise UserError(f"--{name}: is missing; give {', '.join(first)} and {last}")


def _print_config(flags: Flags) -> None:
    """Prints the fields of the config, one a line."""
    fields = config_fields(flags)
    rows = [("field", "type", "value", "default", "from")]
    rows += [(f.path, f.type, _written(f.value), _written(f.default), f.origin) for f in fields]
    widths = [min(max(len(row[i]) for row in rows), _WIDEST) for i in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        print("  ".join([*cells, row[-1]]))


def _written(value: object) -> str:
    return "-" if value is None else repr(value)


def join(flags: Flags) -> None:
    """Connects to the other processes of a run by the flags of `Define.processes`. Call it after all local checks."""
    hosts.start(flags.coordinator, flags.processes, flags.process, flags.timeout)


def _fail(error: UserError) -> int:
    hosts.failed()
    threading.excepthook = lambda _: None  # threads that were writing fail, too
    sys.unraisablehook = lambda _: None
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _log_to_stderr() -> None:
    """Plain lines from this package; warnings only from the libraries below it."""
    absl_logging.use_absl_handler()
    logging.getLogger().setLevel(logging.WARNING)
    absl_logging.set_verbosity(absl_logging.WARNING)
    handler = absl_logging.get_absl_handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    handler.addFilter(lambda record: record.levelno > logging.ERROR or not _said_anyway(record))
    for ours in ("scaling", "__main__"):
        logging.getLogger(ours).setLevel(logging.INFO)


def _said_anyway(record: logging.LogRecord) -> bool:
    """True for a log record of an error that is raised anyway: orbax logs it from each of its threads, asyncio for
    every further array that failed, and gcsfs and fsspec with a traceback.
    """
    unretrieved = record.name == "asyncio" and "never retrieved" in record.getMessage()
    return unretrieved or any(library in record.pathname for library in ("orbax", "gcsfs", "fsspec"))
