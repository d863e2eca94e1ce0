"""The fields of a configuration, listed: their types, values, defaults, and where each value comes from."""

import dataclasses
import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from scaling.core.config import named_kind, typed

# Names that other libraries use for a field, to the fields that may be meant.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "lr": ("base_lr",),
    "learning_rate": ("base_lr",),
    "wd": ("weight_decay",),
    "betas": ("beta1", "beta2"),
    "warmup_steps": ("warmup",),
    "grad_clip": ("clip_norm",),
    "clip_grad": ("clip_norm",),
    "bs": ("batch_size",),
    "epochs": ("epochs", "steps"),
    "num_steps": ("steps",),
    "max_steps": ("steps",),
    "grad_accum": ("accumulate",),
    "gradient_accumulation": ("accumulate",),
    "embed_dim": ("width",),
    "hidden_size": ("width",),
    "dim": ("width",),
    "layers": ("depth",),
    "num_layers": ("depth",),
    "num_heads": ("heads",),
    "mlp_dim": ("mlp",),
    "img_size": ("image_size",),
    "resolution": ("image_size",),
    "input_size": ("image_size",),
    "channels": ("bands",),
    "in_chans": ("bands",),
    "dataset": ("source",),
    "num_workers": ("workers", "threads"),
    "precision": ("dtype",),
    "ema": ("ema_decay",),
}
_NEAR = 4  # fields named at most


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


def near_fields(asked: str, paths: Collection[str]) -> list[str]:
    """Paths that may be meant by `asked`, the likeliest first: the same name elsewhere, fields known by that name in
    other libraries, names with a similar spelling or that contain it.
    """
    leaf = asked.rpartition(".")[2]
    by_name: dict[str, list[str]] = {}
    for path in paths:
        by_name.setdefault(path.rpartition(".")[2], []).append(path)
    names = [leaf] if leaf in by_name else [name for name in SYNONYMS.get(leaf, ()) if name in by_name]
    if not names:
        close = difflib.get_close_matches(leaf, by_name, n=_NEAR, cutoff=0.7)
        within = [name for name in by_name if len(leaf) > 2 and leaf in name.split("_")]
        names = list(dict.fromkeys([*close, *within]))
    place = asked.rpartition(".")[0]
    found = [path for name in names for path in by_name[name]]
    return sorted(found, key=lambda path: path.rpartition(".")[0] != place)[:_NEAR]
