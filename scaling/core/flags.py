"""Flags of a command: definition, parsing, and the messages for wrong ones."""

import functools
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from absl import app, flags
from ml_collections import config_flags

from scaling.core.config import PRINT_CONFIG, RENAMED
from scaling.core.config_file import check_loaded, config_file_error, unknown_field_error, with_found_config
from scaling.core.errors import UserError
from scaling.core.fields import Field, listed
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
        words = values(["--help" if argument == "-h" else argument for argument in with_found_config(argv)])
        flags.FLAGS.mark_as_parsed()  # absl.logging asks
        check_loaded(values)
        return words
    except UserError:
        raise
    except flags.UnrecognizedFlagError as e:
        if (now := RENAMED.get(e.flagname, "")) in values:
            raise UserError(f"--{e.flagname} is now called --{now}; use that") from e
        raise UserError(" ".join(str(e).split())) from e
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as e:
        raise UserError(config_file_error(e) or unknown_field_error(values, str(e)) or " ".join(str(e).split())) from e
    except Exception as e:  # a config file is a program, which can raise anything
        if not (message := config_file_error(e)):
            raise
        raise UserError(message) from e


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
