"""Keeps the memory of a process that reads or writes checkpoints again and again from growing.

TensorStore (0.1.86) never frees the strings, lists and mappings inside what it converts to JSON in Python. Orbax
(0.12.8) asks for such conversions without need: for the compression of every array whose shape is read, which nothing
here uses; for the folder of every array that is read or written, though all arrays share it; and for the bytes in its
telemetry. A process that read the same small checkpoint again and again grew by 0.7 MB a time, and training by 50 kB
with every checkpoint. The functions replaced are private, so another version of Orbax is left as it is.
"""

import copy
import functools
import importlib.metadata
import json
import types
from typing import Any

from orbax.checkpoint._src.serialization import tensorstore_utils  # no public option leaves these out

ORBAX = "0.12.8"
_FOLDERS = 64  # conversions that are kept; what one leaks is small, and the next arrays are of the same folder


class _Folder:
    """The specification of a folder of arrays, converted once."""

    def __init__(self, spec: dict[str, Any]):
        path = spec.get("path", "")
        # a folder's name is in it as it is given; every checkpoint has another
        self._own = {"path": path} if path.endswith("/") else {}
        self._key = json.dumps(spec | dict.fromkeys(self._own, "/"), sort_keys=True)

    def to_json(self) -> Any:
        return copy.deepcopy(_converted(self._key)) | self._own


@functools.lru_cache(_FOLDERS)
def _converted(key: str) -> Any:
    return tensorstore_utils.ts.KvStore.Spec(json.loads(key)).to_json()


class _TensorStore:
    """TensorStore as a function of Orbax sees it that only wants a folder's specification."""

    class KvStore:
        Spec = _Folder


class _WithoutSpec:
    """An open array without `spec`, whose JSON leaks; Orbax then leaves the compression out of its metadata."""

    def __init__(self, opened: Any):
        self.shape, self.dtype, self.chunk_layout = opened.shape, opened.dtype, opened.chunk_layout


_metadata = getattr(tensorstore_utils, "array_metadata_from_tensorstore", None)


def _array_metadata(t: Any, *given: Any, **named: Any) -> Any:
    assert _metadata is not None
    return _metadata(_WithoutSpec(t), *given, **named)


def _with_other_globals(function: Any, **named: Any) -> Any:
    """A copy of a function that sees other values of some names of its module."""
    its = {**function.__globals__, **named}
    made = types.FunctionType(function.__code__, its, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def keep_orbax_from_leaking() -> None:
    """Replaces the three functions of Orbax that leak, once."""
    if importlib.metadata.version("orbax-checkpoint") != ORBAX:
        return
    of = tensorstore_utils
    if of.array_metadata_from_tensorstore is not _array_metadata:
        of.array_metadata_from_tensorstore = _array_metadata
        of.get_tensorstore_raw_bytes = lambda *direction: 0  # none: nothing is reported
        of._build_ocdbt_kvstore_tspec = _with_other_globals(of._build_ocdbt_kvstore_tspec, ts=_TensorStore)
