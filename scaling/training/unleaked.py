"""Keeps the memory of a process that reads checkpoints again and again from growing.

TensorStore (0.1.86) never frees the strings, lists and mappings inside what it converts to JSON in Python. Orbax
(0.12.8) asks for two such conversions without need: for the compression of every array whose shape is read, which
nothing here uses, and for the bytes in its telemetry. A process that read the same small checkpoint again and again
grew by 0.7 MB a time. An Orbax whose functions have other names is left as it is.
"""

from typing import Any

from orbax.checkpoint._src.serialization import tensorstore_utils as of_orbax  # no public option leaves these out


class _WithoutSpec:
    """An open array without `spec`, whose JSON leaks; Orbax then leaves the compression out of its metadata."""

    def __init__(self, opened: Any):
        self.shape, self.dtype, self.chunk_layout = opened.shape, opened.dtype, opened.chunk_layout


_metadata = getattr(of_orbax, "array_metadata_from_tensorstore", None)


def _array_metadata(t: Any, *given: Any, **named: Any) -> Any:
    assert _metadata is not None
    return _metadata(_WithoutSpec(t), *given, **named)


def keep_orbax_from_leaking() -> None:
    """Replaces the two functions of Orbax that leak."""
    if _metadata is not None:
        of_orbax.array_metadata_from_tensorstore = _array_metadata
    if hasattr(of_orbax, "get_tensorstore_raw_bytes"):
        of_orbax.get_tensorstore_raw_bytes = lambda *direction: 0  # none: nothing is reported
