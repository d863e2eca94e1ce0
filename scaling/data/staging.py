"""Copies of prepared data on this machine: a bucket answers in tens of milliseconds, a disk or memory in none."""

import concurrent.futures
import fcntl
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from etils import epath

from scaling.core.errors import TemporaryError, UserError
from scaling.core.files import UNFINISHED, in_bucket
from scaling.data.sources.arrayrecord import MANIFEST, shards_of
from scaling.data.sources.registry import parsed

log = logging.getLogger(__name__)

T = TypeVar("T")

COPIES = 32  # shards that are copied at once


def staged(spec: str, split: str, folder: str) -> str:
    """A spec of the same data in a local folder, after what `split` needs of it was copied there.

    The global order is random over all of a split, so every host copies all of it. Files that are there in their size
    are not copied again; several processes of a machine share one copy.

    Args:
      spec: `arrayrecord:gs://…`; one that is local already is returned as it is.
      split: of which the shards are copied.
      folder: on a disk, or in memory (/dev/shm).

    Raises:
      UserError: the data is of another kind, or there is no room.
      TemporaryError: a copy has another size than the original.
    """
    scheme, path, _ = parsed(spec)
    if not in_bucket(spec):
        return spec
    if scheme != "arrayrecord":
        raise UserError(
            f"data.stage={folder}: copies what `scaling.prepare` wrote, arrayrecord:gs://…, not {spec}; leave it out"
        )
    if in_bucket(folder):
        raise UserError(f"data.stage={folder}: must be a folder of this machine, such as /dev/shm/data")
    source = epath.Path(path)
    place = Path(folder) / f"{source.name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _copy(source, place, shards_of(path, split))
    return f"arrayrecord:{place}"


def _copy(source: epath.Path, place: Path, shards: list[str]) -> None:
    began = time.monotonic()
    sizes = dict(zip(shards, _each(lambda name: (source / name).stat().length, shards), strict=True))
    missing = [name for name in shards if not _same(place / name, sizes[name])]
    wanted, free = sum(sizes[name] for name in missing), shutil.disk_usage(place).free
    if wanted > free:
        raise UserError(
            f"data.stage={place.parent}: {wanted / 2**30:,.1f} GiB are to be copied there and {free / 2**30:,.1f} are "
            "free; name a larger disk, or leave it out"
        )
    _each(lambda name: _fetch(source / name, place / name, sizes[name]), missing)
    (place / MANIFEST).write_bytes((source / MANIFEST).read_bytes())
    if missing:
        seconds = max(time.monotonic() - began, 1e-9)
        rate = f"{wanted / 2**20 / seconds:,.0f} MiB/s"
        log.info("copied %d shards, %.2f GiB, from %s to %s at %s", len(missing), wanted / 2**30, source, place, rate)


def _each(function: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """The values of a function of names, many at a time, in their order."""
    with concurrent.futures.ThreadPoolExecutor(COPIES) as pool:
        return list(pool.map(function, names))


def _same(file: Path, size: int) -> bool:
    return file.exists() and file.stat().st_size == size


def _fetch(source: epath.Path, target: Path, size: int) -> None:
    """Copies one file in a single request; it is whole or not there."""
    import fsspec  # of gcsfs, which reads buckets

    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
    filesystem, path = fsspec.core.url_to_fs(str(source))
    try:
        filesystem.get_file(path, str(aside))
        if aside.stat().st_size != size:
            raise TemporaryError(f"{source} has {size} bytes and its copy {aside.stat().st_size}; start again")
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
