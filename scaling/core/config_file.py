"""The config file of a command line: where it is, and what is wrong with it or with its fields."""

import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from scaling.core.config import RENAMED, find_config, nearest_fields, paths_of
from scaling.core.errors import UserError
from scaling.core.near import near_fields


def with_found_config(argv: list[str]) -> list[str]:
    """A command line whose every --config is one word, --config=PATH, of which a bare name is looked up."""
    return [_find(argument) for argument in _joined(argv)]


def _joined(argv: list[str]) -> list[str]:
    """`--config FILE` as `--config=FILE`."""
    at = [i for i in range(1, len(argv) - 1) if argv[i] in ("--config", "-config")]
    return [f"{x}={argv[i + 1]}" if i in at else x for i, x in enumerate(argv) if i - 1 not in at]


def _find(argument: str) -> str:
    if given := re.fullmatch(r"--?config=([\w+.-]+://.*)", argument, re.DOTALL):
        raise UserError(f"--config={given[1]}: must be a file on this machine; copy it here")
    match = re.fullmatch(r"--?config=([^:]+)(:.*)?", argument)
    return f"--config={find_config(os.path.expanduser(match[1]))}{match[2] or ''}" if match else argument


def _config_arguments() -> Iterator[str]:
    """Every --config of the command line, the last one, which is in effect, first: its file, and the words behind a
    colon.
    """
    return (x.partition("=")[2] for x in reversed(with_found_config(sys.argv)) if re.match("--?config=", x))


def check_loaded(values: flags.FlagValues) -> None:
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


def config_file_error(error: Exception) -> str:
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


def unknown_field_error(values: flags.FlagValues, message: str) -> str:
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
