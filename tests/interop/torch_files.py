"""Writes files in the format of torch.save, without torch."""

import collections
import io
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import ml_dtypes
import numpy as np

KINDS = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.bool_): "BoolStorage",
}


def global_named(module: str, name: str) -> Any:
    """Something that pickles as this global, which need not exist."""
    return type(name, (), {"__module__": module, "__qualname__": name})


class Tensor:
    """A view of a storage, as torch saves it."""

    def __init__(self, storage: np.ndarray, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0):
        self.storage, self.view = storage, (offset, shape, strides)


def tensor(array: np.ndarray) -> Tensor:
    """A contiguous tensor of its own storage."""
    array = np.ascontiguousarray(array)
    return Tensor(array.ravel(), array.shape, tuple(step // array.itemsize for step in array.strides))


def save(path: Path, content: Any, **zip_options: Any) -> Path:
    """Writes `content`: containers of `Tensor` and whatever else can be pickled."""
    rebuild = global_named("torch._utils", "_rebuild_tensor_v2")
    storages: list[np.ndarray] = []
    kinds = {name: global_named("torch", name) for name in KINDS.values()}
    modules = {
        "torch": types.SimpleNamespace(**kinds),
        "torch._utils": types.SimpleNamespace(_rebuild_tensor_v2=rebuild),
    }

    class Pickler(pickle.Pickler):
        def persistent_id(self, x: Any) -> Any:
            if not isinstance(x, np.ndarray):
                return None
            where = next((i for i, s in enumerate(storages) if s is x), len(storages))
            if where == len(storages):
                storages.append(x)
            return "storage", kinds[KINDS[x.dtype]], str(where), "cpu", x.size

        def reducer_override(self, x: Any) -> Any:
            if not isinstance(x, Tensor):
                return NotImplemented
            return rebuild, (x.storage, *x.view, False, collections.OrderedDict())

    file = io.BytesIO()
    with mock.patch.dict(sys.modules, modules):
        Pickler(file, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w", **zip_options) as archive:
        archive.writestr("weights/data.pkl", file.getvalue())
        archive.writestr("weights/byteorder", "little")
        for i, storage in enumerate(storages):
            archive.writestr(f"weights/data/{i}", storage.tobytes())
    return path
