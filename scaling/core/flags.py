"""Flags of a command: definition, parsing, and the messages for wrong ones."""

import functools
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from scaling.core.config import PRINT_CONFIG, RENAMED, find_config, nearest_fields, paths_of
from scaling.core.errors import UserError
from scaling.core.fields import Field, listed
from scaling.core.near import near_fields
from scaling.core.paths import user_path

Flags = flags.FlagValues
Kind = type | Callable[[Mapping[str, Any]], type]  # a config's dataclass, or a function that selects it by the fields
flags.disclaim_key_flags()  # --help shows those of this file as the command's own


class Define:
    """Defines flags of one command: absl's DEFINE functions, and those that several commands share."""

    def __init__(self, values: Flags) -> None:
        self._values = values

        def into(define: Callable[..., Any]) -> Callable[..., Any]:
            return functools.partial(define, flag_values=values)

        self.string, self.integer = into(flags.DEFINE_string), into(flags.DEFINE_integer)
        self.bool, self.list, self.enum = into(flags.DEFINE_bool), into(flags.DEFINE_list), into(flags.DEFINE_enum)
        self.multi_string, self.alias = into(flags.DEFINE_multi_string), into(flags.DEFINE_alias)
        self._config, self._any = into(config_flags.DEFINE_config_file), into(flags.DEFINE)
        self.float = self._number

    def config(self, kind: Kind, help: str = "Config file, by path or by bare name.") -> None:
        """Defines --config=FILE, whose fields are --config.path.to.field=value, and --print_config, which lists them.

        Args:
          kind: dataclass of the configuration, or a function that selects it by the fields.
          help: help text of --config.
        """
        self._config("config", None, help)
        flags.DEFINE_flag(_PrintConfig(kind), self._values)

    def _number(self, name: str, default: float | None, help: str, lower_bound: float | None = None) -> None:
        """Defines a flag that takes a finite number."""
        self._any(_FiniteParser(lower_bound), name, default, help, serializer=flags.ArgumentSerializer())

    def path(self, name: str, default: str | None, help: str) -> None:
        """Defines a flag that takes a path, see `scaling.core.paths.user_path`."""
        self._any(_PathParser(name), name, default, help, serializer=flags.ArgumentSerializer())

    def splits(self, name: str, default: list[str], help: str) -> None:
        """Defines a flag that takes a list of splits, of which `train[:80%,stratified]` is one."""
        self._any(_SplitsParser(), name, default, help, serializer=flags.ListSerializer(","))

    def tasks(self, of: str) -> None:
        """Defines the flags that divide jobs (named `of`) over machines; see `scaling.studies.grid.part`."""
        self.integer("task", 0, f"Index of the part of the {of} to run, from 0.", lower_bound=0)
        self.integer("tasks", 1, f"Number of parts that the {of} are divided into.", lower_bound=1)

    def change(self) -> None:
        """Defines the flag that names what may differ from the run that is resumed."""
        self.list("change", [], "Config fields in which a resumed run may differ from its start, such as data.source.")

    def dry_run(self, what: str) -> None:
        """Defines the flag that has a command check and say all that it does before it begins, and do no more."""
        self.bool(
            "dry_run",
            False,
            f"Perform all the checks of a real start, print the same messages, and exit; do not {what} or write.",
        )

    def processes(self) -> None:
        """Defines the flags of a command that runs on several hosts, for `scaling.cli.join`."""
        self.string("coordinator", "", "host:port of process 0, or `auto`; empty for a single process.")
        self.integer("processes", 1, "Number of processes, with --coordinator=host:port.")
        self.integer("process", 0, "Index of this process, from 0.")
        self.integer("timeout", 300, "Seconds to wait for the other processes.", lower_bound=1)


class _FiniteParser(flags.FloatParser):
    """`nan`, `inf` and what is as large as that, 1e400, are refused: no limit and no price would hold with them."""

    def parse(self, argument: Any) -> float:
        value = super().parse(argument)
        if not math.isfinite(value):
            raise ValueError("must be a finite number; give one")
        return value


class _PathParser(flags.ArgumentParser[str]):
    """`~` is the home; what is neither local nor in a bucket is refused."""

    def __init__(self, flag: str):
        self._flag = flag

    def parse(self, argument: str) -> str:
        return str(user_path(self._flag, argument)) if argument else argument


class _SplitsParser(flags.ListParser):
    """Commas separate splits, except those inside brackets."""

    def parse(self, argument: str | list[str]) -> list[str]:
        if isinstance(argument, list):
            return argument
        return [split.strip() for split in re.split(r",(?![^\[]*\])", argument)] if argument else []


class _PrintConfig(flags.BooleanFlag):
    """--print_config, for a config of some kind."""

    def __init__(self, kind: Kind):
        what = "List all config fields with type, value, default and origin, and exit."
        super().__init__(PRINT_CONFIG, False, what)
        self.kind = kind


class _Help(flags.BooleanFlag):
    """--help of a command; that of absl.app knows only one set of flags, of the first module of the program."""

    def __init__(self, name: str, help: str, show: Callable[[], object], short_name: str | None = None):
        super().__init__(name, False, help, short_name=short_name, allow_hide_cpp=True)
        self._show = show

    def parse(self, argument: Any) -> None:
        if self._parse(argument):
            self._show()
            sys.exit(0)


def defined(define: Callable[[Define], None], doc: str) -> Flags:
    """The flags of a command, those of absl and of other libraries, and --help, which prints the doc."""
    values = Flags()
    define(Define(values))
    for flag in {id(values[name]): values[name] for name in values}.values():
        values.register_key_flag_for_module(sys.argv[0], flag)

    def usage(full: bool) -> None:
        text = values.get_help() if full else values.main_module_help()
        print(f"{doc}\nflags:\n{text}\n" + ("" if full else "\nTry --helpfull to get a list of all flags.\n"), end="")

    short, full = functools.partial(usage, False), functools.partial(usage, True)
    for flag in (
        _Help("help", "show this help", short, short_name="?"),
        _Help("helpshort", "show this help", short),
        _Help("helpfull", "show full help", full),
        _Help(
            "helpxml", "like --helpfull, but generates XML output", lambda: values.write_help_in_xml_format(sys.stdout)
        ),
        _Help(
            "only_check_flags",
            "Check if all flag definitions are valid and exit before main.",
            lambda: print("SUCCESS: All Abseil flags are valid."),
        ),
    ):
        flags.DEFINE_flag(flag, values, module_name=app.__name__)
    for module, theirs in flags.FLAGS.flags_by_module_dict().items():
        for flag in theirs:
            if flag.name not in values:
                flags.DEFINE_flag(flag, values, module_name=module)
    return values


def parse(values: Flags, argv: list[str]) -> list[str]:
    """Parses flags, of which a bare config name is looked up. Returns the words beside them, after argv[0].

    Raises:
      UserError: for every way to get a flag wrong.
    """
    sys.modules.pop("config_config", None)  # else a config file would run in the namespace of the last one
    try:
        words = values([_find("--help" if argument == "-h" else argument) for argument in _joined(argv)])
        flags.FLAGS.mark_as_parsed()  # absl.logging asks
        _check_loaded(values)
        return words
    except UserError:
        raise
    except flags.UnrecognizedFlagError as e:
        if (now := RENAMED.get(e.flagname, "")) in values:
            raise UserError(f"--{e.flagname} is now called --{now}; use that") from e
        raise UserError(" ".join(str(e).split())) from e
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
        raise UserError(_of_config_file(e) or _unknown_field(values, str(e)) or " ".join(str(e).split())) from e
    except Exception as e:  # a config file is a program, which can raise anything
        if not (message := _of_config_file(e)):
            raise
        raise UserError(message) from e


def _check_loaded(values: Flags) -> None:
    """Raises UserError for a --config that holds no fields. An OSError of a config file is first raised when a field of
    what stands in its place is asked for.
    """
    config = values["config"].value if "config" in values else None
    if config is None:
        return
    file = next(_config_arguments(), "")
    try:
        is_config = hasattr(config, "items")
    except OSError as e:
        raise UserError(f"--config={file} cannot be loaded: {str(e).rpartition('to load: ')[2]}") from e
    if not is_config:
        raise UserError(f"--config={file}: get_config() of --config returns config_dict(…), not {config!r}")


def _config_arguments() -> Iterator[str]:
    """Every --config of the command line, the last one, which is in effect, first: its file, and the words behind a
    colon.
    """
    return (x.partition("=")[2] for x in map(_find, reversed(_joined(sys.argv))) if re.match("--?config=", x))


def _of_config_file(error: Exception) -> str:
    """Message for an error in a config file; empty for an error from elsewhere."""
    files = [Path(given.partition(":")[0]) for given in _config_arguments()]
    return next(filter(None, (_of_file(error, file) for file in files)), "")


def _of_file(error: Exception, file: Path) -> str:
    if "no attribute 'get_config'" in str(error):
        remedy = "a config must be a Python file whose get_config() returns config_dict(…)"
        return f"--config={file} has no get_config(); {remedy}"
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).name == file.name:
        return f"--config={file}, line {error.lineno}: {error.msg}"
    if isinstance(error, SyntaxError) and not error.filename:  # bytes that are not Python's at all
        return f"--config={file}: {error.msg}; it is a Python file whose get_config() returns config_dict(…)"
    cause: BaseException | None = error
    while cause:  # ml_collections wraps some of what get_config() raises
        for frame in reversed(traceback.extract_tb(cause.__traceback__)):
            if Path(frame.filename).name == file.name:
                what = _renamed(cause) or f"{type(cause).__name__}: {cause}"
                return f"--config={file}, line {frame.lineno}: {what}"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, (MemoryError, RecursionError)):  # of the compiler; others have a line
        return f"--config={file} is nested too deeply; it is a Python file whose get_config() returns config_dict(…)"
    if "Error whilst parsing config file" in str(error):  # followed by a whole traceback
        return f"--config={file}: {str(error).strip().splitlines()[-1].strip()}"
    return ""


# Modules that config files import, by their former path.
_MOVED = {
    "scaling.config": "scaling.core.config",
    "scaling.errors": "scaling.core.errors",
    "scaling.evaluation.cells": "scaling.studies.slimming.cells",
    "scaling.evaluation.datasets": "scaling.studies.slimming.datasets",
    "scaling.studies.slimming.grid": "scaling.studies.slimming.cells",
    "scaling.sweeps.bases": "scaling.training.recipes",
    "scaling.sweeps.plan": "scaling.studies.sweeps.plan",
    "scaling.sweeps.variation": "scaling.studies.sweeps.variation",
}
# Names that config files import, by their former name.
_RENAMED_THERE = {
    "scaling.studies.slimming.cells": {"SweepConfig": "SlimmingStudyConfig"},
    "scaling.studies.sweeps.plan": {"Planned": "PlannedRun", "make_plan": "planned_runs"},
    "scaling.studies.sweeps.variation": {"Run": "NamedConfig"},
    "scaling.training.recipes": {"small_mae": "small_mae_recipe"},
}


def _renamed(error: BaseException) -> str:
    """Message that gives the current name of a renamed module, name or field; empty for any other error."""
    if (field := re.search(r"unexpected keyword argument '(\w+)'", str(error))) and field[1] in RENAMED:
        return f"{field[1]} is called {RENAMED[field[1]]} now"
    if isinstance(error, ModuleNotFoundError):
        name = error.name or " "
        return "; ".join(_now(old, new) for old, new in _MOVED.items() if f"{old}.".startswith(f"{name}."))
    missing = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error))
    names = _RENAMED_THERE.get(missing[2], {}) if missing else {}
    return f"{missing[1]} is called {names[missing[1]]} now" if missing and missing[1] in names else ""


def _now(old: str, new: str) -> str:
    names = [f"{before} is {now}" for before, now in _RENAMED_THERE.get(new, {}).items()]
    return f"{old} is {new} now{', where ' * bool(names)}{' and '.join(names)}"


def _joined(argv: list[str]) -> list[str]:
    """`--config FILE` as `--config=FILE`."""
    at = [i for i in range(1, len(argv) - 1) if argv[i] in ("--config", "-config")]
    return [f"{x}={argv[i + 1]}" if i in at else x for i, x in enumerate(argv) if i - 1 not in at]


def _find(argument: str) -> str:
    if given := re.fullmatch(r"--?config=([\w+.-]+://.*)", argument, re.DOTALL):
        raise UserError(f"--config={given[1]}: must be a file on this machine; copy it here")
    match = re.fullmatch(r"--?config=([^:]+)(:.*)?", argument)
    return f"--config={find_config(os.path.expanduser(match[1]))}{match[2] or ''}" if match else argument


def _unknown_field(values: Flags, message: str) -> str:
    """Message for an unknown config field, with the nearest known ones; empty if the error has another cause."""
    bare = re.fullmatch(r"[\"']*(\w+)[\"']*", message)
    suggested = re.search(r"'(\w+)\\?'.*Did you mean \\?\"(\w+)\\?\"", message, re.DOTALL)
    if not (found := bare or suggested) or "config" not in values:
        return ""
    asked = [argument.partition("=")[0].partition("config.")[2] for argument in sys.argv[1:]]
    path = next((path for path in asked if found[1] in path.split(".")), "")
    file = next(_config_arguments(), "")
    if not path or not file:
        return ""
    name, _, argument = file.partition(":")
    level: Any = values["config"].parser.parse(f"{find_config(name)}{argument and ':' + argument}")
    fields = paths_of(level)
    for parent in path.split(".")[: path.split(".").index(found[1])]:
        level = level[parent]
    if RENAMED.get(found[1]) not in level and (near := near_fields(path, fields)):
        return f"unknown config field {path}; did you mean {' or '.join(near)}?"
    return f"unknown config field {path}{nearest_fields(found[1], list(level))}"


def overridden(values: Flags) -> set[str]:
    """Dotted paths of the fields of --config that the command line sets."""
    return set(config_flags.get_override_values(values["config"]))


def config_fields(values: Flags) -> list[Field]:
    """The fields of the command's --config, as defined by `Define.config`.

    Raises:
      UserError: no --config, or a value whose type is not that of its field.
    """
    config = values["config"].value
    if config is None:
        raise UserError(f"--{PRINT_CONFIG}: needs a config; give --config=FILE")
    asked = values[PRINT_CONFIG]
    assert isinstance(asked, _PrintConfig)
    kind: Any = asked.kind
    cls = kind if isinstance(kind, type) else kind(config)
    return listed(cls, config, overridden(values))
