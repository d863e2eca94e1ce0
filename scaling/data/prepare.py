"""Converts any source to sharded ArrayRecord. After an interruption the same call resumes where it stopped.

The folder holds `plan.json` (the work to be done) from the start, each finished shard with a small
`….arrayrecord.json` about it, and at the end `manifest.json`. Every file appears whole, by a rename or an upload.
"""

import concurrent.futures
import dataclasses
import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.core.files import UNFINISHED, write_whole
from scaling.data.shards import Shard, Split, finished, shards_of, write_shard
from scaling.data.sources.arrayrecord import MANIFEST, checksum_of, declared, format_of, start_of
from scaling.data.sources.base import Info
from scaling.data.sources.registry import open_source
from scaling.data.spot_checks import layout
from scaling.data.statistics import BandMoments, sampled
from scaling.parallel.claim import CLAIM, Claim

PLAN = "plan.json"
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
        splits = {
            split: Split(source, *layouts[split], _measured(len(source)), plan.size)
            for split, source in sources.items()
        }
        return _convert(plan, folder, splits, claim, workers, progress, begin)


def _convert(
    plan: Preparation,
    folder: epath.Path,
    splits: dict[str, Split],
    claim: Claim,
    workers: int,
    progress: Callable[[int], None],
    begin: Callable[[int], None],
) -> dict[str, Any]:
    shards = {name: shards_of(name, len(split.source), plan.shard_size) for name, split in splits.items()}
    begin(sum(len(split.source) for split in splits.values()))
    stop = threading.Event()

    def write(shard: Shard) -> dict[str, Any]:
        done = finished(folder, shard)
        if done is not None:
            progress(shard.stop - shard.start)
            return done
        claim.check()
        return write_shard(folder, shard, splits[shard.split], progress, stop)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        tasks = {split: [pool.submit(write, shard) for shard in parts] for split, parts in shards.items()}
        try:
            written = {split: [task.result() for task in parts] for split, parts in tasks.items()}
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    claim.check()
    manifest = _manifest(plan, next(iter(splits.values())), shards, written)
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


def _measured(total: int) -> frozenset[int]:
    """The records that enter the band statistics: more than `statistics.measure` takes, because all are decoded
    anyway.
    """
    return frozenset(range(total) if total < 2 * _SAMPLE else sampled(total, _SAMPLE))


def _manifest(
    plan: Preparation,
    first: Split,
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
    info = first.source.info
    manifest = {
        "format": format_of(info),
        "source": plan.source,
        "size": plan.size,
        "bands": first.bands,
        "dtype": str(first.dtype),
        **declared(info),
        "splits": splits,
    }
    return {**manifest, "checksum": checksum_of(manifest)}
