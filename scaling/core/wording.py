"""Names of arguments in messages: flags in a command, `--step=3`, and arguments in Python, `step=3`.

Messages are written for commands; what is called from Python says them in its own words.
"""

import ast
import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterator
from typing import ParamSpec, TypeVar

from scaling.core.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

# A value ends before punctuation, another flag or the end of the message, and may have spaces.
_END = r"(?=[;:,.]*(?:\n|$)|[;:,.]+\s|\s+(?:(?:and|or)\s+)?--)"
_FIELD = rf"--config\.([\w.]+)=(\([^)]*\)|\S.*?{_END})"
_FIELDS = re.compile(f"{_FIELD}(?: {_FIELD})*")
_BEGIN = r"(?<![^\s(\[`'\"])--"  # dashes inside a word or a path are no flag
_FLAG = re.compile(rf"{_BEGIN}([a-z]\w*)(?![\w/-])")
_LIST = re.compile(rf"{_BEGIN}(change|bands|keep|axes|widths)=(\w[^\s;:]*[^\s;:,.]|\w)")  # arguments that are lists
_LISTS = {"column": "columns", "where": "where"}  # lists by the flag that is given several times
_REPEATED = re.compile(rf'{_BEGIN}({"|".join(_LISTS)})=("[^"]*")')
# Arguments by the flag of the same meaning, for functions that do not have one of that name.
_CALLED = {"output": ("path",), "checkpoint": ("path", "workdir"), "images": ("limit",), "input": ("images",)}
_PHRASES = {
    "start the same command again": "make the same call again",
    "the same command": "the same call",
    "print_config lists all": "the command with --print_config lists all",  # after its flag has become a name
}
_commands = 0  # that are running in this process


@contextlib.contextmanager
def in_command() -> Iterator[None]:
    """Context in which messages name flags, also those of functions that Python calls."""
    global _commands
    _commands += 1
    try:
        yield
    finally:
        _commands -= 1


def for_python(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with messages of its UserErrors that name arguments where no command is running."""
    names = inspect.signature(function).parameters

    @functools.wraps(function)
    def said(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as e:
            if not _commands:
                e.args = (in_python(str(e), names), *e.args[1:])
            raise

    return said


def in_python(message: str, names: Collection[str] = ()) -> str:
    """A message that names flags, in the words of a function with arguments of these names."""

    def called(flag: str) -> str:
        others = [name for name in _CALLED.get(flag, ()) if name in names]
        return flag if flag in names or not others else others[0]

    message = _FIELDS.sub(lambda found: _dictionary(found[0]), message)
    message = _LIST.sub(lambda found: f"{called(found[1])}={_values(found[2])}", message)
    message = _REPEATED.sub(lambda found: f"{_LISTS[found[1]]}=[{found[2]}]", message)
    message = _FLAG.sub(lambda found: called(found[1]), message)
    for phrase, ours in _PHRASES.items():
        message = message.replace(phrase, ours)
    return message


def _dictionary(flags: str) -> str:
    """`--config.a.b=1 --config.c=x` as `fields={'a.b': 1, 'c': 'x'}`."""
    entries = [f"{found[1]!r}: {_value(found[2])}" for found in re.finditer(_FIELD, flags)]
    return f"fields={{{', '.join(entries)}}}"


def _values(written: str) -> str:
    return f"[{', '.join(_value(value) for value in written.split(','))}]"


def _value(written: str) -> str:
    """A value as Python writes it."""
    try:
        return repr(ast.literal_eval(written))
    except (ValueError, SyntaxError):
        return repr(written)
