"""The fields of a configuration, listed: their types, values, defaults, and where each value comes from."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from scaling.core.config import named_kind, typed


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a configuration.

    Attributes:
      path: dotted path, such as `optimizer.base_lr`.
      type: Python type as text.
      value: value in effect.
      default: default value; None if the field has no default.
      origin: where the value comes from: `command line`, `config file` or `default`.
    """

    path: str
    type: str
    value: Any
    default: Any
    origin: str


def listed(cls: type | None, values: Mapping[str, Any], given: Collection[str] = (), prefix: str = "") -> list[Field]:
    """All fields of a nested configuration, in the order of its dataclass.

    Args:
      cls: dataclass of the configuration; None if it has none, in which case fields have no defaults.
      values: nested mapping with every field.
      given: paths of the fields set on the command line.
      prefix: prefix of the paths.

    Raises:
      UserError: a value whose type is not that of its field.
    """
    return list(_listed(cls, values, given, prefix, cls() if cls else None))


def _listed(
    cls: type | None, values: Mapping[str, Any], given: Collection[str], prefix: str, defaults: Any
) -> Iterator[Field]:
    own = {f.name: f for f in dataclasses.fields(cls)} if cls else {}
    for name in [*(name for name in own if name in values), *(name for name in values if name not in own)]:
        value, path, field = values[name], f"{prefix}{name}", own.get(name)
        kind: Any = field.type if field else None
        default = getattr(defaults, name, None)
        if field and (kinds := field.metadata.get("kinds")):
            kind = named_kind(kinds, value, path)
            default = default if isinstance(default, kind) else kind()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _listed(kind, value, given, f"{path}.", default)
        elif hasattr(value, "items") and value:
            inner = kind.__args__[1] if getattr(kind, "__origin__", None) is dict else None
            for key, part in value.items():
                yield from _entry(inner, key, part, given, path)
        else:
            yield _field(path, kind, value, default, given)


def _entry(inner: Any, key: str, part: Any, given: Collection[str], path: str) -> Iterator[Field]:
    """The fields under one key of a mapping."""
    if hasattr(part, "items"):
        cls: Any = inner if dataclasses.is_dataclass(inner) else None
        yield from _listed(cls, part, given, f"{path}.{key}.", cls() if cls else None)
    else:
        yield _field(f"{path}.{key}", inner, part, None, given)


def _field(path: str, kind: Any, value: Any, default: Any, given: Collection[str]) -> Field:
    value = typed(kind, value, path) if kind else value
    written = (kind.__name__ if isinstance(kind, type) else str(kind)) if kind else type(value).__name__
    if getattr(kind, "__origin__", None):
        written = str(kind)
    origin = "command line" if path in given else "default" if kind and value == default else "config file"
    return Field(path, written, value, default if kind else None, origin)
