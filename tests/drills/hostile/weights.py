"""Files of weights: torch's zip archives and legacy pickles, safetensors and its index."""

import collections
import io
import json
import os
import pickle
import random
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from scaling.interop.weights import read_weights
from tests.drills.hostile.archives import archive, zeros
from tests.drills.hostile.formats import Format
from tests.drills.mutation import mutated
from tests.interop import torch_files

_TOUCHED = 1 << 20  # elements of each array that are read


class _Call:
    """Pickles as a call, which a careless reader would make."""

    def __init__(self, function: Any, *arguments: Any):
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def _calls() -> list[_Call]:
    return [
        _Call(os.system, "true"), _Call(eval, "__import__('os').system('true')"), _Call(exec, "import socket"),
        _Call(__import__, "antigravity"), _Call(getattr, _Call(__import__, "os"), "system"), _Call(open, "/tmp/x", "w"),
        _Call(map, eval, ["1"]), _Call(np.load, "/etc/passwd"), _Call(bytearray, 1 << 40),
    ]  # fmt: skip


def _torch_archives() -> list[bytes]:
    rng = np.random.default_rng(0)
    storage = np.arange(12, dtype=np.float32)
    contents: list[Any] = [
        {"a.weight": torch_files.tensor(rng.normal(size=(3, 4)).astype(np.float32)), "epoch": 3},
        {
            "model": collections.OrderedDict(
                x=torch_files.Tensor(storage, (4, 3), (1, 4)), y=torch_files.tensor(storage)
            )
        },
        {"state_dict": {f"k{i}": torch_files.tensor(np.full(2, i, np.int64)) for i in range(8)}, "args": [1.5, "x"]},
    ]
    with tempfile.TemporaryDirectory() as folder:
        return [torch_files.save(Path(folder) / "w.pth", content).read_bytes() for content in contents]


def _archive(pickled: bytes) -> bytes:
    return archive([("w/data.pkl", pickled, None), ("w/data/0", bytes(48), None), ("w/byteorder", b"little", None)])


def _laughs(depth: int = 40) -> bytes:
    """A pickle of a dictionary that holds another twice, and so on: few bytes, 2^depth paths."""
    inner: dict[str, Any] = {"x": 1}
    for _ in range(depth):
        inner = {"a": inner, "b": inner}
    return pickle.dumps(inner)


def _itself() -> bytes:
    endless: dict[str, Any] = {}
    endless["a"] = endless
    return pickle.dumps(endless)


def _bombs() -> list[bytes]:
    """Pickles of few bytes that ask for much memory."""
    return [
        b"\x80\x02Nr" + struct.pack("<I", 2**31 - 1) + b".",  # LONG_BINPUT: a place in the memo
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",  # BYTEARRAY8
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",  # BINBYTES8
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b".",  # FRAME
        b"\x80\x02]" + b"(" * 100_000 + b"t" * 100_000 + b".",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"I" + b"9" * 100_000 + b"\n.",
    ]


def _crafted_torch() -> list[bytes]:
    pickles = [pickle.dumps({"a": call}, protocol=2) for call in _calls()]
    text = b"\x80\x04\x8e" + struct.pack("<Q", 3 << 30)  # bytes of 3 GiB
    head = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed_text = head.compress(text) + head.flush(zlib.Z_FULL_FLUSH) + zeros(3 << 10)
    archives = [_archive(pickled) for pickled in (*pickles, *_bombs(), _laughs(), _itself())]
    order = [("w/data.pkl", pickle.dumps({}), None), ("w/byteorder", zeros(3 << 10), 3 << 30)]
    return [*archives, archive([("w/data.pkl", packed_text, len(text) + (3 << 30))]), archive(order)]


def _change_torch(data: bytes, rng: random.Random, others: tuple[bytes, ...]) -> bytes:
    """Changes of the archive, or of its pickle in an archive that is whole."""
    if rng.random() < 0.5:
        return mutated(data, rng, others)
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    return archive([(k, mutated(v, rng) if k.endswith("data.pkl") else v, None) for k, v in entries.items()])


def _legacy() -> list[bytes]:
    """What torch wrote before 1.6: pickles one behind the other. All of them are refused, so none is valid here."""
    plain = {"a": [1.0, 2.0], "b": "x"}
    return [
        b"".join(pickle.dumps(x, protocol=2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, plain))
    ]


def _change_legacy(data: bytes, rng: random.Random, others: tuple[bytes, ...]) -> bytes:
    """Changes of a pickle; none is ever read, but a change can give it the look of another format."""
    return mutated(rng.choice([*_legacy(), *others]), rng, others)


def _crafted_legacy() -> list[bytes]:
    pickles = [pickle.dumps(call, protocol=protocol) for call in _calls() for protocol in (0, 2, 4)]
    return [*pickles, *_bombs(), _laughs(), _itself()]


def _safetensors() -> list[bytes]:
    rng = np.random.default_rng(0)
    arrays = {"a.weight": rng.normal(size=(3, 4)).astype(np.float32), "b": np.arange(3), "c": np.array(True)}
    return [save(arrays, {"format": "pt"}), save({f"k{i}": np.full(2, i, np.float16) for i in range(8)})]


def _with_header(header: Any, data: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _crafted_safetensors() -> list[bytes]:
    def one(**fields: Any) -> bytes:
        return _with_header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **fields}}, bytes(16))

    return [
        one(shape=[2**40]), one(shape=[-4]), one(shape=[2**32, 2**32]), one(data_offsets=[0, 2**62]),
        one(shape=[0], data_offsets=[0, 0]),
        one(data_offsets=[16, 0]), one(dtype="F32X"), one(dtype="../../x"), one(shape=[2**63, 2]), one(shape=[]),
        _with_header(b'{"a":' * 100_000), _with_header(b"{" + b"[" * 100_000), _with_header({"__metadata__": {"x": 1}}),
        _with_header({}), struct.pack("<Q", 2**39) + b"{}", struct.pack("<Q", 2**40 - 1) + b"{",
        b'{"weight_map": {"a": "../../etc/passwd"}}', b'{"weight_map": {"a": "input.safetensors"}}',
        b'{"weight_map": ' + b"[" * 100_000, b'{"weight_map": {"a": "secret"}}', b'{"weight_map": {"a": 1}}',
        b"[1]", b"{" * 100_000,
    ]  # fmt: skip


def _change_safetensors(data: bytes, rng: random.Random, others: tuple[bytes, ...]) -> bytes:
    """Changes of the file, or of its header, of which the length is made right again."""
    if rng.random() < 0.4:
        return mutated(data, rng, others)
    (size,) = struct.unpack("<Q", data[:8])
    return _with_header(mutated(data[8 : 8 + size], rng, text=True), data[8 + size :])


def _read(path: Path) -> None:
    for array in read_weights(path).values():
        array.reshape(-1)[:_TOUCHED].sum() if array.size <= _TOUCHED else array[(slice(0, 1),) * array.ndim].sum()


FORMATS = (
    Format("torch", "torch.save's zip archives", _torch_archives, _read, _crafted_torch, _change_torch, ".pth"),
    Format(
        "pickle", "pickles, and those of torch before 1.6", _torch_archives, _read, _crafted_legacy, _change_legacy,
        ".pth",
    ),
    Format(
        "safetensors", "safetensors, and the index of several", _safetensors, _read, _crafted_safetensors,
        _change_safetensors, ".safetensors",
    ),
)  # fmt: skip
