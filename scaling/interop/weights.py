"""Files of weights: name -> array, whatever the format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from scaling.errors import UserError
from scaling.interop.torch_file import read_torch

_ZIP = b"PK\x03\x04"
_TYPES: dict[str, Any] = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": ml_dtypes.bfloat16, "BOOL": "?"}
_TYPES |= {f"{kind}{8 * size}": f"{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)}


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a `.safetensors` file, or of a torch file by the keys that lead to them, joined by dots.

    A wrapper around the weights (`model`, `state_dict`) so becomes a prefix, and what is no array is left out. The
    format is told by the content, not by the ending.

    Raises:
      UserError: there is no such file, it is damaged or refused (see `read_torch`), or has no arrays.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file of weights")
    with path.open("rb") as file:
        start = file.read(9)
    arrays = dict(_flat(read_torch(path))) if start[:4] == _ZIP else _safetensors(path, start)
    if not arrays:
        raise UserError(f"{path} has no arrays")
    return arrays


def _safetensors(path: Path, start: bytes) -> dict[str, np.ndarray]:
    if start[8:9] != b"{":
        raise UserError(f"{path} is neither safetensors nor a zip archive: truncated, or saved by a torch before 1.6")
    try:
        with safe_open(path, framework="numpy"):
            pass  # the header is well-formed and fits the file
    except SafetensorError as e:
        raise UserError(f"{path} is damaged: {e}") from e
    length = int.from_bytes(start[:8], "little")
    with path.open("rb") as file:
        file.seek(8)
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {name: _mapped(path, entry, 8 + length) for name, entry in header.items()}


def _mapped(path: Path, entry: Mapping[str, Any], data: int) -> np.ndarray:
    """One array of a safetensors file, which is not read before it is looked at."""
    first, end = entry["data_offsets"]
    dtype, shape = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"])
    if first == end:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", data + first, shape).view(np.ndarray)


def _flat(tree: Any, prefix: str = "") -> list[tuple[str, np.ndarray]]:
    if isinstance(tree, np.ndarray):
        return [(prefix, tree)]
    if not isinstance(tree, Mapping):
        return []
    return [pair for key, value in tree.items() for pair in _flat(value, f"{prefix}.{key}" if prefix else str(key))]
