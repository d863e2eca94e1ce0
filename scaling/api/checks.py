"""Checks of the functions' arguments, by name."""

import functools
import inspect
import logging
import numbers
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from scaling.core.errors import UserError
from scaling.core.paths import unmade_on_failure
from scaling.core.wording import for_python
from scaling.data.sources.registry import SCHEMES, stored_spec
from scaling.encoders.encoder import Encoder
from scaling.encoders.similarity import MINIBATCH

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Source = str | os.PathLike[str]  # spec of a source, or path of a folder


class _Need(NamedTuple):
    met: Callable[[Any], bool]
    said: str


def _whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _several(value: Any) -> bool:
    return isinstance(value, list | tuple | range | np.ndarray)


_COUNT = _Need(lambda value: _whole(value) and value >= 0, "must be a whole number, 0 or more")
_PAIR = _Need(
    lambda value: isinstance(value, tuple | list) and (len(value) == 2 or hasattr(value, "labels")),
    "must be features with their labels: scaling.probe((features, labels), (test_features, test_labels))",
)
_NEEDS = {
    "encoder": _Need(lambda value: isinstance(value, Encoder), "must be an encoder; scaling.load(path) reads one"),
    "step": _Need(lambda value: value is None or _whole(value), "must be a whole number, or None for the newest"),
    "source": _Need(
        lambda value: isinstance(value, str | os.PathLike),
        "must be a source such as folder:DIR; encoder.features(images) encodes an array",
    ),
    "mode": _Need(
        lambda value: isinstance(value, str), "must be the name of a mode, or names of axes joined by +, as heads+mlp"
    ),
    "train": _PAIR,
    "test": _PAIR,
    "validation": _Need(lambda value: value is None or _PAIR.met(value), _PAIR.said),
    "split": _Need(lambda value: isinstance(value, str), "must be the name of a split, such as train"),
    "bands": _Need(_several, "must be a list of bands, by index or name"),
    "width_ratio": _Need(
        lambda value: isinstance(value, numbers.Real) and not isinstance(value, bool), "must be a number in (0, 1]"
    ),
    "keep": _Need(
        lambda value: _several(value) and all(map(_whole, value)), "must be a list of blocks by number, from 0: [0, 2]"
    ),
    "estimator": _Need(lambda value: value in MINIBATCH, f"must be one of {', '.join(MINIBATCH)}"),
    "k": _Need(_whole, "must be a whole number of neighbours"),
    "fields": _Need(
        lambda value: value is None or isinstance(value, Mapping), "must be a dict of fields by their dotted path"
    ),
    "change": _Need(_several, "must be a list of names of fields"),
} | dict.fromkeys(("blocks", "limit", "seed"), _COUNT)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function with messages that name arguments, and a UserError for an argument of a kind that its name does not
    allow. Folders that it made are removed again if it fails before it fills them.
    """
    signature = inspect.signature(function)

    @for_python
    @functools.wraps(function)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name, value in (bound.arguments | bound.kwargs).items():
            if name in _NEEDS and not _NEEDS[name].met(value):
                shown = f"{name}={value!r}" if isinstance(value, str | numbers.Number) else type(value).__name__
                raise UserError(f"{shown}: {name} {_NEEDS[name].said}")
        with unmade_on_failure():
            return function(*args, **kwargs)

    return checking


def source_of(source: Source) -> str:
    """The spec of a source; a path becomes that of a folder of images, as does text that is the path of a folder. A
    folder with the name of a source is not meant, which is logged.
    """
    if not isinstance(source, str):
        return f"folder:{os.fspath(source)}"
    if source not in SCHEMES or not os.path.isdir(source):
        return stored_spec(source)
    log.warning("source=%s: the built-in source of that name is read; the folder is folder:%s", source, source)
    return source
