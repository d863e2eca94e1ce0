"""Reads files written by torch.save, without torch and without running code from the file.

A torch file is a zip archive: `data.pkl`, a pickle in which every tensor is a view (offset, shape, strides) of a
storage, and one uncompressed entry with the bytes of each storage. The pickle is read by an unpickler that can build
only tensors and plain containers: any other name in it is an error. Storages are memory-mapped, so unused ones take no
memory.
"""

import collections
import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from scaling.core.errors import UserError, first_line

# torch's storage classes and the dtypes of their elements.
_STORAGES: dict[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def read_torch(path: Path) -> Any:
    """The saved object: nested containers with read-only numpy arrays instead of tensors.

    Raises:
      UserError: the file is damaged, older than torch 1.6, or contains something that is neither a tensor nor a plain
        container; the message names it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickled = [name for name in entries if name.endswith("/data.pkl") or name == "data.pkl"]
            if not pickled:
                raise UserError(f"{path}: is a zip archive without data.pkl, no torch file; give a file of torch.save")
            folder = pickled[0].removesuffix("data.pkl")
            order = b"little"
            if f"{folder}byteorder" in entries:
                order = archive.read(_stored(path, entries[f"{folder}byteorder"]))
            if order != b"little":
                raise UserError(f"{path}: was written on a big-endian machine; save it again on a little-endian one")
            content = archive.read(_stored(path, entries[pickled[0]]))
        _check_sizes(content)
        return _Unpickler(io.BytesIO(content), path, {k.removeprefix(folder): v for k, v in entries.items()}).load()
    except zipfile.BadZipFile as e:
        raise UserError(
            f"{path}: is not a zip archive: truncated, or saved by a torch before 1.6 ({e}); fetch or save it again"
        ) from e
    except UserError:
        raise
    except Exception as e:  # a damaged pickle makes the unpickler and what it builds raise anything
        raise UserError(f"{path}: is damaged: {type(e).__name__}: {first_line(e)}; fetch it again") from e


def _stored(path: Path, entry: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """An entry as torch.save writes it: not compressed, so that it is not longer than the file."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > path.stat().st_size:
        raise UserError(f"{path}: is damaged: {entry.filename} is compressed or too short; fetch it again")
    return entry


def _check_sizes(pickled: bytes) -> None:
    """Raises ValueError for a pickle of few bytes that would make the unpickler allocate many: it trusts the lengths
    and the places in its memo that it reads.
    """
    for code, argument, _ in pickletools.genops(pickled):  # refuses lengths beyond the end
        if code.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(pickled):
            raise ValueError(f"place {argument} in the memo of {len(pickled)} bytes")


class _Unpickler(pickle.Unpickler):
    """Builds tensors and plain containers; every other global is refused before anything is called."""

    def __init__(self, file: Any, path: Path, entries: dict[str, zipfile.ZipInfo]):
        super().__init__(file)
        self._path, self._entries = path, entries
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        if (module, name) not in _ALLOWED:
            asked = f"{module}.{name}".encode("unicode_escape").decode()  # on one line
            raise UserError(
                f"{self._path}: asks for {asked}, which does not belong in a file of weights; save its state_dict alone"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError(f"unknown persistent id {kind!r}")
        if key not in self._storages:
            self._storages[key] = self._map(self._entries[f"data/{key}"], dtype, count)
        return self._storages[key]

    def _map(self, entry: zipfile.ZipInfo, dtype: np.dtype, count: int) -> np.ndarray:
        if _stored(self._path, entry).file_size < count * dtype.itemsize:
            raise UserError(f"{self._path}: is damaged: {entry.filename} is compressed or too short; fetch it again")
        with self._path.open("rb") as file:
            file.seek(entry.header_offset)
            header = file.read(30)
            name, extra = struct.unpack("<HH", header[26:30])
            start, size = entry.header_offset + 30 + name + extra, file.seek(0, 2)
        if header[:4] != b"PK\x03\x04" or start + count * dtype.itemsize > size:
            raise UserError(f"{self._path}: is damaged: {entry.filename} is not where the archive says; fetch it again")
        if not count:
            return np.empty(0, dtype)
        return np.memmap(self._path, dtype, "r", start, (count,))


def _tensor(storage: np.ndarray, offset: int, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    """A view of a storage, checked to be inside it."""
    shape, strides = tuple(shape), tuple(strides)
    if min((offset, *shape, *strides), default=0) < 0 or len(shape) != len(strides):
        raise ValueError(f"a tensor of shape {shape} with strides {strides} at {offset}")
    if math.prod(shape):
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if last >= len(storage):
            raise ValueError(f"a tensor reaches element {last} of a storage of {len(storage)}")
    steps = tuple(step * storage.itemsize for step in strides)
    view = np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
    return view.view(np.ndarray)


class _Arguments:
    """The arguments of a training script, which some files hold beside the weights; they are ignored."""


# Globals allowed in a file of weights, besides storages.
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("argparse", "Namespace"): _Arguments,
}
