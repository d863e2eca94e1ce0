"""Containers of many examples: zip archives, HDF5, ArrayRecord."""

import io
import json
import os
import random
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from scaling.data.images import CorruptImage
from scaling.data.prepare import Preparation, convert
from scaling.data.sources.geobench import SETS
from scaling.data.sources.registry import open_source
from tests.data.examples import class_folders, jpeg, png, smooth
from tests.drills.hostile.archives import archive, zeros
from tests.drills.hostile.formats import Format
from tests.drills.mutation import mutated

_SECRET = 173.0


def _zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as out:
        for name, content in files.items():
            out.writestr(name, content)
    return file.getvalue()


_LINE = b"2 2 9 2 9 9 2 9 plane 0\n"


def _zips() -> list[bytes]:
    pictures = {f"{name}/{i}.png": png(smooth(i, 8, 8)) for name in ("a", "b") for i in range(2)}
    tiles = {f"images/{i}.png": png(smooth(i, 16, 16)) for i in range(2)}
    return [
        _zipped(pictures),
        _zipped({name: jpeg(smooth(1, 8, 8)) for name in ("1.jpg", "2.jpg")}, zipfile.ZIP_STORED),
        _zipped({**tiles, **{f"labelTxt/{i}.txt": _LINE for i in range(2)}}),
    ]


def _crafted_zips() -> list[bytes]:
    small, huge = png(smooth(0, 8, 8)), (zeros(3 << 10), 3 << 30)
    absolute = _zipped({"/tmp/x.png": small, "../../x.png": small, "a/../../y.png": small, "C:\\z.png": small})
    link = io.BytesIO()
    with zipfile.ZipFile(link, "w") as file:
        entry = zipfile.ZipInfo("link.png")
        entry.external_attr = 0o120777 << 16
        file.writestr(entry, "/etc/passwd")
        file.writestr("1.png", small)
    return [
        absolute,
        link.getvalue(),
        archive([("1.png", *huge), ("2.png", small, None)]),
        archive([("1.png", zeros(3 << 10), 1000)]),  # it says that it is small
        archive([("images/1.png", small, None), ("labelTxt/1.txt", *huge)]),
        archive([("images/1.png", small, None), ("labelTxt/1.txt", zeros(3 << 10), 1000)]),
        _zipped({f"{i}.png": b"" for i in range(20_000)}, zipfile.ZIP_STORED),
        _overlapping(small),
        _zipped({"x" * 65_000 + ".png": small, "a/" * 20_000 + "1.png": small}),
        _zipped({"1.png": small, "1.png/2.png": small, "labels.csv": b"name,label\n" * 3}),
    ]


def _overlapping(content: bytes) -> bytes:
    """An archive in which many entries are one (Fifield 2019, "A better zip bomb")."""
    data = bytearray(_zipped({"0.png": content}))
    end = data.rfind(b"PK\x05\x06")
    first = data.rfind(b"PK\x01\x02")
    entry, copies = bytes(data[first:end]), 20_000
    entries = b"".join(entry.replace(b"0.png", f"{i:05d}"[-5:].encode()) for i in range(copies))
    tail = bytearray(data[end:])
    tail[8:20] = struct.pack("<HHII", copies, copies, len(entries), first)
    return bytes(data[:first]) + entries + bytes(tail)


def _change_zip(data: bytes, rng: random.Random, others: tuple[bytes, ...]) -> bytes:
    """Changes of the archive, or of its entries in an archive that is whole."""
    if rng.random() < 0.6:
        return mutated(data, rng, others)
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        files = {name: file.read(name) for name in file.namelist()}
    names = {rng.choice((name, mutated(name.encode(), rng, text=True).decode("latin-1"))): name for name in files}
    named = {new.split("\0")[0][:60_000] or "x": name for new, name in names.items()}
    return _zipped({new: mutated(files[name], rng, text=True) for new, name in named.items()})


def _read_all(spec: str, split: str = "train") -> None:
    source = open_source(spec, split)
    refused = 0
    for i in range(min(len(source), 20)):
        source.name(i)
        try:
            source[i]
        except CorruptImage as error:
            if "allocate" in str(error) or "Memory" in str(error):
                raise
            refused += 1
    if refused:
        raise CorruptImage(spec, f"{refused} images")


def _read_zip(path: Path) -> None:
    if b"labelTxt/" not in path.read_bytes()[:1000]:
        _read_all(f"zip:{path}")
        return
    folder = path.with_name("dota")
    folder.mkdir(exist_ok=True)
    path.replace(folder / "train.zip")
    _read_all(f"dota:{folder}")


_BANDS = ("02 - Blue", "03 - Green", "04 - Red")


def _hdf5(**options: Any) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as out:
        for b, band in enumerate(_BANDS):
            out.create_dataset(band, data=np.arange(64, dtype=np.int16).reshape(8, 8) + b, **options)
    return file.getvalue()


def _hdf5s() -> list[bytes]:
    return [_hdf5(), _hdf5(compression="gzip", chunks=(4, 4), shuffle=True), _hdf5(fletcher32=True)]


def _crafted_hdf5() -> list[bytes]:
    files = []

    def write(make: Any) -> None:
        file = io.BytesIO()
        with h5py.File(file, "w") as out:
            for band in _BANDS[1:]:
                out.create_dataset(band, data=np.zeros((8, 8), np.int16))
            make(out)
        files.append(file.getvalue())

    first = _BANDS[0]
    write(lambda out: out.create_dataset(first, shape=(200_000, 200_000), dtype="i2", chunks=(1000, 1000)))
    write(lambda out: out.create_dataset(first, shape=(50_000, 50_000), dtype="f8", compression="gzip", chunks=True))
    write(lambda out: out.__setitem__(first, h5py.ExternalLink("/dev/shm/drills-secret.hdf5", "x")))
    write(lambda out: out.create_dataset(first, (8, 8), "u1", external=[("/etc/passwd", 0, 64)]))
    write(lambda out: out.__setitem__(first, h5py.SoftLink(first)))
    write(lambda out: out.create_dataset(first, data=["x" * 10] * 8, dtype=h5py.string_dtype()))
    write(lambda out: out.create_group(first).__setitem__("up", out["/"]))
    return files


def _read_hdf5(path: Path) -> str | None:
    folder = path.parent / SETS[0] if isinstance(SETS, (list, tuple)) else path.parent / next(iter(SETS))
    folder.mkdir(exist_ok=True)
    if not (folder / "default_partition.json").exists():
        (folder / "default_partition.json").write_text(json.dumps({"train": ["x"], "valid": [], "test": []}))
        (folder / "label_map.json").write_text(json.dumps({"0": ["x"]}))
    path.replace(folder / "x.hdf5")
    secret = Path("/etc/passwd").read_bytes()[:8]
    source = open_source(f"geobench:{folder}", "train")
    image = source[0]["image"]
    return "read another file" if bytes(image[..., 0].ravel()[:8].astype(np.uint8)) == secret else None


_PREPARED = ("manifest.json", "train-00000-of-00001.arrayrecord")


def _records() -> list[bytes]:
    """A prepared folder in one: the manifest and the only shard. A process that has written one cannot be forked."""
    with tempfile.TemporaryDirectory() as folder:
        if not os.fork():
            class_folders(Path(folder) / "set", 3)
            plan = Preparation(f"folder:{folder}/set", ("train",), f"{folder}/out", size=8)
            convert(plan, 1, lambda n: None, lambda n: None)
            os._exit(0)
        assert os.wait()[1] == 0
        files = sorted(Path(folder, "out").iterdir())
        assert tuple(path.name for path in files) == _PREPARED
        return [b"".join(struct.pack("<I", path.stat().st_size) + path.read_bytes() for path in files)]


def _parts(data: bytes) -> list[bytes]:
    parts, at = [], 0
    while at + 4 <= len(data):
        (size,) = struct.unpack("<I", data[at : at + 4])
        parts.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return parts


def _change_records(data: bytes, rng: random.Random, others: tuple[bytes, ...]) -> bytes:
    manifest, shard = _parts(data)
    if rng.random() < 0.3:
        manifest = mutated(manifest, rng, text=True)
    else:
        shard = mutated(shard, rng, (shard,))
    return b"".join(struct.pack("<I", len(part)) + part for part in (manifest, shard))


def _read_records(path: Path) -> None:
    folder = path.with_name("records")
    folder.mkdir(exist_ok=True)
    for name, content in zip(_PREPARED, _parts(path.read_bytes()), strict=True):
        (folder / name).write_bytes(content)
    _read_all(f"arrayrecord:{folder}")


FORMATS = (
    Format(
        "zip", "zip archives of images, and DOTA's with labels", _zips, _read_zip, _crafted_zips, _change_zip, ".zip"
    ),
    Format("hdf5", "HDF5 samples of GEO-Bench", _hdf5s, _read_hdf5, _crafted_hdf5, suffix=".hdf5"),
    Format("arrayrecord", "a shard of ArrayRecord and its manifest", _records, _read_records, change=_change_records),
)
