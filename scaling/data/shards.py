"""One file of a conversion: its records, and a note about them that lies beside it until the manifest is written."""

import concurrent.futures
import contextlib
import dataclasses
import io
import json
import re
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from PIL import Image

from scaling.core.files import whole_file, write_whole
from scaling.data.geometry import Geometry, whole
from scaling.data.images import CorruptImage, pixels_of
from scaling.data.sources.arrayrecord import pack
from scaling.data.sources.base import Source, Stored
from scaling.data.statistics import BandMoments
from scaling.data.transforms import shrunk

_JPEG_QUALITY = 95  # for images that were made smaller


class Split(NamedTuple):
    """What is written.

    Attributes:
      source: the split.
      bands, dtype: those of every image.
      measured: records that enter the band statistics.
      size: largest length of the shorter side in pixels; 0 keeps the original bytes of every image.
    """

    source: Source
    bands: int
    dtype: np.dtype
    measured: frozenset[int]
    size: int


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file to write: the records `start` to `stop` of a split."""

    split: str
    file: str
    start: int
    stop: int


def shards_of(split: str, count: int, size: int) -> list[Shard]:
    """The files of a split with so many records, `size` in each."""
    number = -(-count // size)
    stem = re.sub(r"[^\w.+-]", lambda found: f"_{ord(found[0]):x}", split)  # readers take brackets for patterns
    return [
        Shard(split, f"{stem}-{i:05d}-of-{number:05d}.arrayrecord", i * size, min(count, (i + 1) * size))
        for i in range(number)
    ]


def finished(folder: epath.Path, shard: Shard) -> dict[str, Any] | None:
    """The note about a shard if it is finished and its size has not changed since."""
    with contextlib.suppress(OSError, ValueError):
        note = json.loads((folder / f"{shard.file}.json").read_text())
        if (folder / shard.file).stat().length == note["bytes"]:
            return note
    return None


def write_shard(
    folder: epath.Path, shard: Shard, split: Split, progress: Callable[[int], None], stop: threading.Event
) -> dict[str, Any]:
    """Writes a file and the note about it, which is returned; ends with CancelledError where `stop` is set."""
    source, moments, bad, count = split.source, BandMoments(), [], 0
    with whole_file(folder / shard.file) as path:
        writer = ArrayRecordWriter(str(path), "group_size:1")  # one record per block: reads are random
        for index in range(shard.start, shard.stop):
            if stop.is_set():
                raise concurrent.futures.CancelledError
            try:
                image, stored, label, targets = _example(source, index, split.size)
                if image.dtype != split.dtype:
                    raise CorruptImage(source.name(index), f"is {image.dtype}, the others are {split.dtype}")
            except CorruptImage as error:
                bad.append(str(error))
            else:
                writer.write(pack(stored, label, source.name(index), targets))
                count += 1
                if index in split.measured:
                    moments.add_alike(image, split.bands)
            progress(1)
        writer.close()
    note = {
        "bytes": (folder / shard.file).stat().length,
        "count": count,
        "bad": bad,
        "pixels": moments.pixels,
        "total": moments.total.tolist(),
        "squares": moments.squares.tolist(),
    }
    write_whole(folder / f"{shard.file}.json", json.dumps(note))
    return note


def _example(source: Source, index: int, size: int) -> tuple[np.ndarray, bytes | np.ndarray, Any, dict[str, Any]]:
    """The pixels, the data to store (the original bytes if allowed), the label and the packed targets. Every image
    is decoded once.
    """
    kept = source.kept(index) if isinstance(source, Stored) else source[index]
    stored = kept["image"]
    image = pixels_of(stored, source.name(index))
    height, width = image.shape[:2]
    geometry = shrunk(height, width, size) if size else whole(height, width, (height, width))
    larger = geometry.size != (height, width)
    targets = {}
    for target in source.info.targets:
        try:
            target.check(kept[target.name], height, width)
        except CorruptImage as error:
            raise CorruptImage(source.name(index), error.reason) from error
        value = target.moved(kept[target.name], geometry) if larger else kept[target.name]
        targets[target.name] = target.packed(value)
    if larger:
        image = _resized(image, geometry)
    if isinstance(stored, np.ndarray):
        stored = _encode(image, "PNG")
    elif larger:
        stored = _encode(image, "JPEG" if stored.startswith(b"\xff\xd8") else "PNG")
    return image, stored, source.info.label.packed(kept["label"]), targets


def _resized(image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The resized image in the same dtype, so that all images of a set have one dtype."""
    small = np.empty((*geometry.size, image.shape[2]), image.dtype)
    geometry.image(image, small)
    return small


def _encode(image: np.ndarray, kind: str) -> bytes | np.ndarray:
    """An image file for 8-bit grey and colour, the array itself for everything else."""
    if image.dtype != np.uint8 or image.shape[2] not in (1, 3):
        return np.ascontiguousarray(image)
    buffer = io.BytesIO()
    pixels = image[..., 0] if image.shape[2] == 1 else image
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, quality=_JPEG_QUALITY)
    return buffer.getvalue()
