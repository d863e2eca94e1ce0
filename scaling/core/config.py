"""Config files to frozen dataclasses and back.

An experiment is a Python file whose `get_config()` returns `config_dict(SomeConfig(...))`: an ml_collections ConfigDict
that holds every field with its default, so that each can be overridden on the command line
(`--config.model.width=256`) and an unknown one is refused. `from_config_dict` turns it back into the dataclass, once.
"""

import dataclasses
import difflib
import os
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scaling.core.errors import UserError
from scaling.core.near import near_fields

if TYPE_CHECKING:
    from ml_collections import ConfigDict

T = TypeVar("T")

PRINT_CONFIG = "print_config"  # flag that lists all fields
_LISTED = 10  # fields listed at most
_UNLIKE = 0.4  # names of at most this similarity, of 1, keep their order
# Fields that were renamed: old name to new. Stored configurations and rows are read under both.
RENAMED = {"average": "ema_decay", "slim": "mode", "width": "width_ratio", "depth": "depth_ratio"}


class UnknownFieldError(UserError):
    """A field that a configuration does not have; `path` is its dotted path."""

    def __init__(self, path: str, advice: str):
        super().__init__(f"unknown config field {path}{advice}")
        self.path = path


def config_dict(config: Any) -> "ConfigDict":
    """A (nested) dataclass instance as a locked ConfigDict."""
    from ml_collections import ConfigDict  # models and their benchmarks do not need it

    return ConfigDict(dataclasses.asdict(config)).lock()


def from_config_dict(cls: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """A dataclass from a nested mapping; missing fields take their defaults. `prefix` precedes field names in messages.

    A field whose metadata has `kinds`, {name: dataclass}, takes the dataclass selected by its own field `name`.

    Raises:
      UserError: an unknown field (the message names the nearest right one) or a value of the wrong type.
    """
    if not hasattr(values, "items"):
        what = f"config field {prefix} takes fields" if prefix else "get_config() of --config returns config_dict(…)"
        raise UserError(f"{what}, not {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments = {}
    for written, value in values.items():
        name = written if written in fields else RENAMED.get(written, written)
        if name not in fields:
            raise UnknownFieldError(_join(prefix, name), nearest_fields(name, list(fields)))
        kind: Any = fields[name].type
        if kinds := fields[name].metadata.get("kinds"):
            kind = named_kind(kinds, value, _join(prefix, name))
            _check_renamed(kinds, value, _join(prefix, name))
        arguments[name] = typed(kind, value, _join(prefix, name))
    return cls(**arguments)


# What a config is of, by a field that is in no other: the command, and a file that is shipped.
_KINDS = {
    "objective": ("scaling.train", "vit_b.py"),
    "epochs": ("scaling.finetune", "finetune.py"),
    "datasets": ("scaling.slim", "slim.py"),
    "recipe": ("scaling.efficiency", "efficiency.py"),
    "base": ("scaling.sweep", "sweeps/width.py"),
}


def config_of(cls: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass of what a config file holds, which may be one of another command.

    Raises:
      UserError: see `check_kind` and `from_config_dict`.
    """
    check_kind(cls, values)
    return from_config_dict(cls, values)


def check_kind(cls: type, values: Any) -> None:
    """Raises UserError for fields that are those of another kind of config."""
    own = {f.name for f in dataclasses.fields(cls)}
    mine = next((about for field, about in _KINDS.items() if field in own), None)
    given = [field for field in _KINDS if hasattr(values, "items") and field in values]
    if mine and given and not own.intersection(given):
        (command, _), (ours, file) = _KINDS[given[0]], mine
        raise UserError(f"--config: is a config of {command}; give one of {ours}, such as {file}")


def read_config(cls: type[T], config: Any, fields: Mapping[str, Any] | None = None) -> T:
    """The dataclass of a configuration, as the commands read it from --config and its fields.

    Args:
      cls: a dataclass.
      config: a config file, by path or bare name, with an argument after a colon; an instance of the dataclass; or
        nested fields.
      fields: values that override fields, by dotted path.

    Raises:
      UserError: see `find_config`, `check_kind` and `from_config_dict`; or a file without `get_config`.
    """
    if isinstance(config, str | os.PathLike):
        name, *words = str(config).split(":", 1)
        file = find_config(os.path.expanduser(name))
        made = runpy.run_path(str(file)).get("get_config")
        if made is None:
            raise UserError(
                f"{file} has no get_config(); a config must be a Python file whose get_config() returns config_dict(…)"
            )
        config = made(*words)
    whole = _plain(dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config)  # type: ignore[arg-type]
    check_kind(cls, whole)
    for path, value in (fields or {}).items():
        level, (*parents, last) = whole, path.split(".")
        for i, parent in enumerate(parents):
            level = level.setdefault(parent, {})
            if not isinstance(level, dict):
                raise UserError(f"{path}: {'.'.join(parents[: i + 1])} has no fields")
        level[last] = value
    try:
        return from_config_dict(cls, whole)
    except UnknownFieldError as e:
        known = dict.fromkeys([*paths_of(dataclasses.asdict(cls())), *paths_of(whole)])  # type: ignore[call-overload]
        if near := near_fields(e.path, [path for path in known if path != e.path]):
            raise UserError(f"unknown config field {e.path}; did you mean {' or '.join(near)}?") from e
        raise


def paths_of(fields: Any, prefix: str = "") -> list[str]:
    """Dotted paths of all config fields in nested `fields`."""
    found = []
    for name, value in fields.items():
        found += paths_of(value, f"{prefix}{name}.") if hasattr(value, "items") else [f"{prefix}{name}"]
    return found


def _plain(values: Any) -> Any:
    """Nested fields as mutable dictionaries."""
    return {name: _plain(value) for name, value in values.items()} if hasattr(values, "items") else values


def copied(cls: type[T], *configs: Any) -> T:
    """A dataclass with the fields that it shares with other configs; the first config that has a field provides it."""
    there = {f.name: getattr(c, f.name) for c in reversed(configs) for f in dataclasses.fields(c)}
    own = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: value for name, value in there.items() if name in own})


def divided(cls: type, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits values into fields of a dataclass and all others."""
    own = {f.name for f in dataclasses.fields(cls)}
    mine = {name: value for name, value in values.items() if name in own}
    return mine, {name: value for name, value in values.items() if name not in own}


def named_kind(kinds: Mapping[str, type], value: Any, prefix: str) -> type:
    """The dataclass that a mapping selects by its `name`. Raises UserError for an unknown name."""
    name = value.get("name") if hasattr(value, "get") else None
    if not isinstance(name, str) or name not in kinds:
        raise UserError(f"{prefix}.name={name!r}: must be one of {', '.join(sorted(kinds))}")
    return kinds[name]


# Shipped files by the kind of objective or task that they have.
FILES = {
    "mae": "vit_b.py",
    "moco": "moco_b.py",
    "slimmable": "slimmable_ti8.py",
    "classification": "finetune.py",
    "segmentation": "segment.py",
    "detection": "detect.py",
    "slimmable_classification": "finetune_slimmable.py",
}


def _check_renamed(kinds: Mapping[str, type], value: Mapping[str, Any], prefix: str) -> None:
    """Raises UserError for the fields of another kind than the `name` says: it was changed in a config that has all."""

    def has_all(kind: str) -> bool:
        return {RENAMED.get(field, field) for field in value} <= {f.name for f in dataclasses.fields(kinds[kind])}

    name = value["name"]
    if not has_all(name) and (others := [kind for kind in sorted(kinds) if has_all(kind)]):
        file = f", such as {FILES[name]}" if name in FILES and prefix in ("objective", "task") else ""
        raise UserError(
            f"{prefix}.name={name}: the config has the fields of {others[0]}, which differ; give a config of "
            f"{name}{file}"
        )


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def nearest(name: str, names: list[str], listed: str = "the fields are ") -> str:
    """`; did you mean X?` for the closest name, else a list of all of them, introduced by `listed`."""
    return _close(name, names) or f"; {listed}{', '.join(names)}"


def nearest_fields(name: str, names: list[str]) -> str:
    """`nearest` for the fields of a config, of which at most ten are listed, similar ones first."""
    if len(names) <= _LISTED or _close(name, names):
        return nearest(name, names)
    likeness = {other: difflib.SequenceMatcher(None, name, other).ratio() for other in names}
    first = sorted(names, key=lambda other: -max(likeness[other], _UNLIKE))[:_LISTED]
    return f"; the fields are {', '.join(first)} and {len(names) - _LISTED} more; --{PRINT_CONFIG} lists all"


def _close(name: str, names: list[str]) -> str:
    """The closest name in words; empty if none is close."""
    if (now := RENAMED.get(name)) in names:
        return f"; it is called {now} now"
    same = [other for other in names if other.lower() == name.lower()]
    close = same or difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def typed(kind: Any, value: Any, name: str) -> Any:
    """A value converted to the type of its field `name`: only int to float and list to tuple are allowed.

    Raises:
      UserError: a value of another type.
    """
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_config_dict(kind, value, name)
    plain = getattr(kind, "__origin__", kind)
    if plain is dict and hasattr(value, "items"):
        return {key: typed(kind.__args__[1], item, _join(name, key)) for key, item in value.items()}
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > sys.float_info.max:
            raise UserError(f"config field {name} takes {plain.__name__}, not a whole number beyond 1e308")
        return float(value)
    if plain is tuple and isinstance(value, list | tuple):
        kinds = kind.__args__[:1] * len(value) if kind.__args__[-1] is Ellipsis else kind.__args__
        if len(kinds) != len(value):
            raise UserError(f"config field {name} takes {len(kinds)} values, not {value!r}")
        return tuple(typed(k, v, name) for k, v in zip(kinds, value, strict=True))
    if isinstance(value, float) and value != value:
        raise UserError(f"{name}={value}: must be a number; give one, or leave the field out")
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        shown = " ".join(repr(value).split())  # that of a ConfigDict has several lines
        raise UserError(f"config field {name} takes {plain.__name__}, not {shown}")
    return value


def find_config(name: str) -> Path:
    """The config file of that name: a path, else a file in `configs/` of the working directory, checkout or package.

    Raises:
      UserError: no such file; the message lists the shipped configs.
    """
    package = Path(__file__).resolve().parents[1]
    folders = [Path("."), Path("configs"), package.parent / "configs", package / "configs"]
    for folder in folders:
        if (folder / name).is_file():
            return (folder / name).resolve()
    shipped = sorted({p.relative_to(f).as_posix() for f in folders[2:] if f.is_dir() for p in f.rglob("*.py")})
    raise UserError(f"no config file {name!r}{nearest(name, shipped, 'the shipped ones are ')}")
