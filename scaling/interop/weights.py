"""Reads files of weights of any format as name -> array."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from scaling.core.errors import UserError
from scaling.core.files import parse_json
from scaling.interop.formats import WANTED, check_archive, check_file, entries, is_safetensors
from scaling.interop.torch_file import read_torch

_ZIP = b"PK\x03\x04"
_TYPES: dict[str, Any] = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": ml_dtypes.bfloat16, "BOOL": "?"}
_TYPES |= {f"{kind}{8 * size}": f"{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)}
_TYPES |= {"F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E8M0": ml_dtypes.float8_e8m0fnu}
_DEEPEST, _MOST = 100, 100_000  # levels of nested mappings, and values in all of them
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.")


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a `.safetensors` file, of a torch file (by the path of keys to them, joined by dots), or of the
    files listed in an index (`model.safetensors.index.json`, `pytorch_model.bin.index.json`).

    A wrapper around the weights (`model`, `state_dict`) thus becomes a prefix, and other values are left out. The
    format is recognised by content, not by the ending.

    Raises:
      UserError: no such file, or one that is damaged, refused (see `read_torch`), of another format, or without arrays.
    """
    check_file(path)
    shard = _SHARD.search(path.name)
    if shard and int(shard[1]) > 1:
        raise UserError(
            f"{path}: is one file of {int(shard[1])}; give their index, {_SHARD.sub('.', path.name)}.index.json"
        )
    return _sharded(path) if _is_index(path) else _read(path)


def files_of(path: Path) -> list[Path]:
    """The file and, for an index, the files that it names."""
    return [path, *(path.with_name(name) for name in sorted(set(_index(path).values())))] if _is_index(path) else [path]


def _is_index(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(9)
    return start.lstrip()[:1] == b"{" and not is_safetensors(start)


def _read(path: Path) -> dict[str, np.ndarray]:
    check_file(path)
    with path.open("rb") as file:
        start = file.read(9)
    arrays = _torch(path) if start[:4] == _ZIP else _safetensors(path, start)
    if not arrays:
        raise UserError(f"{path}: has no arrays; {WANTED}")
    return arrays


def _torch(path: Path) -> dict[str, np.ndarray]:
    check_archive(path, entries(path))
    return _flat(path, read_torch(path))


def _index(path: Path) -> dict[str, str]:
    """Key -> name of the file that has it."""
    try:
        index = parse_json(path.read_text())
    except ValueError as e:
        raise UserError(f"{path}: is text, and no weights; {WANTED}") from e
    where = index.get("weight_map")
    if not isinstance(where, dict) or not where:
        raise UserError(f"{path}: is JSON without a weight_map, no weights and no index of them; {WANTED}")
    for key, name in where.items():
        if not isinstance(name, str) or name != Path(name).name:
            raise UserError(f"{path}: {key} is in {name!r}, which is not a file beside it; give an index of such")
    return where


def _sharded(path: Path) -> dict[str, np.ndarray]:
    """The arrays of all files of an index, each from the file that the index names."""
    where = _index(path)
    names = sorted(set(where.values()))
    missing = [name for name in names if not path.with_name(name).is_file()]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {len(names)} files are not beside it, first {missing[0]}; fetch them"
        )
    files = {name: _read(path.with_name(name)) for name in names}
    for key, name in where.items():
        if key not in files[name]:
            raise UserError(f"{path}: {key} is not in {name}; the files are of another index; fetch both again")
    return {key: files[name][key] for key, name in where.items()}


def _safetensors(path: Path, start: bytes) -> dict[str, np.ndarray]:
    if not is_safetensors(start):
        raise UserError(
            f"{path}: is neither safetensors nor a zip archive: truncated, or saved by a torch before 1.6; fetch or "
            "save it again"
        )
    try:
        with safe_open(path, framework="numpy"):
            pass  # the header is well-formed and fits the file
    except SafetensorError as e:
        raise UserError(f"{path}: is damaged: {e}; fetch it again") from e
    length = int.from_bytes(start[:8], "little")
    with path.open("rb") as file:
        file.seek(8)
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    for key, entry in header.items():
        if entry["dtype"] not in _TYPES:
            raise UserError(
                f"{path}: {key} has the type {entry['dtype']}; those that are read: {', '.join(_TYPES)}; save it as one"
            )
    return {name: _mapped(path, entry, 8 + length) for name, entry in header.items()}


def _mapped(path: Path, entry: Mapping[str, Any], data: int) -> np.ndarray:
    """One array of a safetensors file, memory-mapped, so it is read only when used."""
    first, end = entry["data_offsets"]
    dtype, shape = np.dtype(_TYPES[entry["dtype"]]), tuple(entry["shape"])
    if first == end:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", data + first, shape).view(np.ndarray)


def _flat(path: Path, tree: Any) -> dict[str, np.ndarray]:
    """The arrays of nested mappings. A pickle of few bytes can hold a mapping in itself, or one in two places, again
    and again.
    """
    found, waiting, seen = {}, [("", tree, 0)], 0
    while waiting:
        name, value, depth = waiting.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST:
            raise UserError(f"{path} is damaged: its mappings are nested without end")
        if isinstance(value, np.ndarray):
            found[name] = value
        elif isinstance(value, Mapping):
            inner = [(f"{name}.{key}" if name else str(key), part, depth + 1) for key, part in value.items()]
            waiting += reversed(inner)
    return found
