"""Converts any source to sharded ArrayRecord. After an interruption the same call resumes where it stopped.

The folder holds `plan.json` (the work to be done) from the start, each finished shard with a small
`….arrayrecord.json` about it, and at the end `manifest.json`. Every file appears whole, by a rename or an upload.
"""

import concurrent.futures
import contextlib
import dataclasses
import io
import json
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from PIL import Image

from scaling.core.errors import UserError
from scaling.core.files import UNFINISHED, whole_file, write_whole
from scaling.data.geometry import Geometry, whole
from scaling.data.images import CorruptImage, pixels_of
from scaling.data.sources.arrayrecord import MANIFEST, checksum_of, declared, format_of, pack, start_of
from scaling.data.sources.base import Info, Source, Stored
from scaling.data.sources.registry import open_source
from scaling.data.spot_checks import layout
from scaling.data.statistics import BandMoments, sampled
from scaling.data.transforms import shrunk
from scaling.parallel.claim import CLAIM, Claim

PLAN = "plan.json"
_JPEG_QUALITY = 95  # for images that were made smaller
_SAMPLE = 10_000  # images per split that enter the band statistics; all of them if there are fewer than twice as many


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A conversion to be done.

    Attributes:
      source: a spec of `scaling.data.sources.registry`.
      splits: splits of the source.
      output: the folder to write.
      size: largest length of the shorter side in pixels; 0 keeps the original bytes of every image.
      shard_size: records per shard.
    """

    source: str
    splits: tuple[str, ...]
    output: str
    size: int = 0
    shard_size: int = 10_000

    def __post_init__(self):
        if not self.source or not self.output:
            raise UserError("--source and --output: must be given; give --source=SPEC and --output=DIR")
        if not self.splits or self.size < 0 or self.shard_size < 1:
            raise UserError(
                "--split must name at least one split, --size must not be negative, and --shard_size must be at least 1"
            )


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file to write: the records `start` to `stop` of a split."""

    split: str
    file: str
    start: int
    stop: int


def convert(
    plan: Preparation, workers: int, progress: Callable[[int], None], begin: Callable[[int], None]
) -> dict[str, Any]:
    """Writes all missing shards, then the manifest.

    Args:
      plan: the conversion.
      workers: shards written at the same time, in threads (codecs release the GIL).
      progress: called with each number of newly finished examples.
      begin: called once with the total number of examples.

    Returns:
      The manifest.

    Raises:
      UserError: the folder is finished, holds something else, or is written to by another process; or the source
        cannot be read.
    """
    folder = epath.Path(plan.output).expanduser()
    sources = {split: open_source(plan.source, split) for split in plan.splits}
    infos = {split: dataclasses.replace(source.info, statistics=None) for split, source in sources.items()}
    info = next(iter(infos.values()))
    for other in infos.values():
        if other != info:
            fields = [f.name for f in dataclasses.fields(Info) if getattr(other, f.name) != getattr(info, f.name)]
            different = " and ".join(fields).replace("_", " ")
            raise UserError(f"{plan.source}: its splits have different {different}; prepare each into its own folder")
    layouts = {split: layout(source, ()) for split, source in sources.items()}
    if len(dtypes := {str(dtype) for _, dtype in layouts.values()}) > 1:
        raise UserError(
            f"{plan.source}: its splits are {' and '.join(sorted(dtypes))}; prepare each into its own folder"
        )
    counts = {split: len(source) for split, source in sources.items()}
    wanted = _wanted(plan, counts, format_of(info))
    _check_ours(folder, wanted)  # before anything is written there, a lock included
    with Claim(folder) as claim:
        _check_ours(folder, wanted)
        _begin(folder, wanted)
        return _convert(plan, folder, sources, layouts, claim, workers, progress, begin)


def _convert(
    plan: Preparation,
    folder: epath.Path,
    sources: dict[str, Source],
    layouts: dict[str, tuple[int, np.dtype]],
    claim: Claim,
    workers: int,
    progress: Callable[[int], None],
    begin: Callable[[int], None],
) -> dict[str, Any]:
    shards = {split: _shards(split, len(source), plan.shard_size) for split, source in sources.items()}
    begin(sum(len(source) for source in sources.values()))
    measured = {split: _measured(len(source)) for split, source in sources.items()}
    stop = threading.Event()

    def write(shard: Shard) -> dict[str, Any]:
        done = _finished(folder, shard)
        if done is not None:
            progress(shard.stop - shard.start)
            return done
        claim.check()
        split = shard.split
        return _write_shard(folder, shard, sources[split], layouts[split], measured[split], plan.size, progress, stop)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        tasks = {split: [pool.submit(write, shard) for shard in parts] for split, parts in shards.items()}
        try:
            written = {split: [task.result() for task in parts] for split, parts in tasks.items()}
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    claim.check()
    manifest = _manifest(plan, next(iter(sources.values())), next(iter(layouts.values())), shards, written)
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1))
    notes = [f"{shard.file}.json" for parts in shards.values() for shard in parts]
    for leftover in (PLAN, *notes, CLAIM):  # whoever takes the lock from now on finds the manifest
        (folder / leftover).unlink(missing_ok=True)
    return manifest


def _wanted(plan: Preparation, counts: dict[str, int], kept_as: int) -> dict[str, Any]:
    wanted = {**dataclasses.asdict(plan), "splits": list(plan.splits), "counts": counts, "format": kept_as}
    del wanted["output"]  # the folder may be moved between two attempts
    return wanted


def _check_ours(folder: epath.Path, wanted: dict[str, Any]) -> None:
    """Raises UserError for a folder that is neither empty nor begun with the same plan."""
    there = sorted(child.name for child in folder.iterdir()) if folder.exists() else []
    if MANIFEST in there:
        raise UserError(f"{folder} is already finished; delete it, or choose another --output")
    if PLAN in there:
        try:
            begun = dict(json.loads((folder / PLAN).read_text()))
        except ValueError as error:
            raise UserError(f"{folder / PLAN} was not written by scaling.prepare; choose an empty --output") from error
        if changed := [key for key in wanted if begun.get(key) != wanted[key]]:
            details = ", ".join(f"{key} {begun.get(key)} (now {wanted[key]})" for key in changed)
            raise UserError(f"{folder} was started with {details}; give the same flags, or choose another --output")
    elif any(not name.startswith(".") for name in there):
        raise UserError(f"{folder} holds other files ({there[0]}, …); choose an empty --output")


def _begin(folder: epath.Path, wanted: dict[str, Any]) -> None:
    for file in folder.iterdir():
        if file.name.startswith(UNFINISHED):
            file.unlink()
    write_whole(folder / PLAN, json.dumps(wanted))


def _shards(split: str, count: int, size: int) -> list[Shard]:
    number = -(-count // size)
    stem = re.sub(r"[^\w.+-]", lambda found: f"_{ord(found[0]):x}", split)  # readers take brackets for patterns
    return [
        Shard(split, f"{stem}-{i:05d}-of-{number:05d}.arrayrecord", i * size, min(count, (i + 1) * size))
        for i in range(number)
    ]


def _measured(total: int) -> frozenset[int]:
    """The records that enter the band statistics: more than `statistics.measure` takes, because all are decoded
    anyway.
    """
    return frozenset(range(total) if total < 2 * _SAMPLE else sampled(total, _SAMPLE))


def _finished(folder: epath.Path, shard: Shard) -> dict[str, Any] | None:
    """The note about a shard if it is finished and its size has not changed since."""
    with contextlib.suppress(OSError, ValueError):
        note = json.loads((folder / f"{shard.file}.json").read_text())
        if (folder / shard.file).stat().length == note["bytes"]:
            return note
    return None


def _write_shard(
    folder: epath.Path,
    shard: Shard,
    source: Source,
    layout: tuple[int, np.dtype],
    measured: frozenset[int],
    size: int,
    progress: Callable[[int], None],
    stop: threading.Event,
) -> dict[str, Any]:
    moments, bad, count = BandMoments(), [], 0
    bands, dtype = layout
    with whole_file(folder / shard.file) as path:
        writer = ArrayRecordWriter(str(path), "group_size:1")  # one record per block: reads are random
        for index in range(shard.start, shard.stop):
            if stop.is_set():
                raise concurrent.futures.CancelledError
            try:
                image, stored, label, targets = _example(source, index, size)
                if image.dtype != dtype:
                    raise CorruptImage(source.name(index), f"is {image.dtype}, the others are {dtype}")
            except CorruptImage as error:
                bad.append(str(error))
            else:
                writer.write(pack(stored, label, source.name(index), targets))
                count += 1
                if index in measured:
                    moments.add_alike(image, bands)
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


def _manifest(
    plan: Preparation,
    first: Source,
    layout: tuple[int, np.dtype],
    shards: dict[str, list[Shard]],
    written: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    splits = {}
    for split, notes in written.items():
        moments = BandMoments()
        for note in notes:
            moments.merge(note["pixels"], np.array(note["total"]), np.array(note["squares"]))
        if not moments.pixels:
            raise UserError(f"{plan.source}: no readable image in split {split!r}; first {notes[0]['bad'][:1]}")
        mean, std = moments.statistics()
        splits[split] = {
            "count": sum(note["count"] for note in notes),
            "shards": [shard.file for shard in shards[split]],
            "starts": [start_of(epath.Path(plan.output).expanduser() / shard.file) for shard in shards[split]],
            "mean": mean,
            "std": std,
            "bad": [line for note in notes for line in note["bad"]],
        }
    bands, dtype = layout
    manifest = {
        "format": format_of(first.info),
        "source": plan.source,
        "size": plan.size,
        "bands": bands,
        "dtype": str(dtype),
        **declared(first.info),
        "splits": splits,
    }
    return {**manifest, "checksum": checksum_of(manifest)}
