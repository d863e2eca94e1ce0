"""Local copies of prepared data: a bucket responds in tens of milliseconds, a local disk or memory at once."""

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

COPIES = 32  # shards copied at once


def staged(spec: str, split: str, folder: str) -> str:
    """Copies the shards of `split` to a local folder, and returns the spec of the copy.

    The global order is random over the whole split, so every host copies all of it. Existing files of the right size
    are not copied again; the processes of one machine share a copy.

    Args:
      spec: `arrayrecord:gs://…`; a local spec is returned unchanged.
      split: the split whose shards are copied.
      folder: folder on a disk, or in memory (/dev/shm).

    Raises:
      UserError: another kind of source, or no space left.
      TemporaryError: the size of a copy differs from the original.
    """
    check_stage(spec, folder)
    if not in_bucket(spec):
        return spec
    path = parsed(spec)[1]
    source = epath.Path(path)
    place = Path(folder) / f"{source.name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _copy(source, place, shards_of(path, split))
    return f"arrayrecord:{place}"


def check_stage(spec: str, folder: str) -> None:
    """Raises a UserError if `staged` would refuse the source or the folder; asks neither."""
    if in_bucket(spec) and parsed(spec)[0] != "arrayrecord":
        raise UserError(
            f"data.stage={folder}: copies only the files of `scaling.prepare` in a bucket, arrayrecord:gs://…, not "
            f"{spec}; leave it out"
        )
    if in_bucket(folder):
        raise UserError(f"data.stage={folder}: must be a folder of this machine, such as /dev/shm/data")


def _copy(source: epath.Path, place: Path, shards: list[str]) -> None:
    began = time.monotonic()
    sizes = dict(zip(shards, _each(lambda name: (source / name).stat().length, shards), strict=True))
    missing = [name for name in shards if not _same(place / name, sizes[name])]
    wanted, free = sum(sizes[name] for name in missing), shutil.disk_usage(place).free
    if wanted > free:
        raise UserError(
            f"data.stage={place.parent}: {wanted / 2**30:,.1f} GiB would be copied there, but only {free / 2**30:,.1f} "
            "are free; name a larger disk, or leave it out"
        )
    _each(lambda name: _fetch(source / name, place / name, sizes[name]), missing)
    (place / MANIFEST).write_bytes((source / MANIFEST).read_bytes())
    if missing:
        seconds = max(time.monotonic() - began, 1e-9)
        rate = f"{wanted / 2**20 / seconds:,.0f} MiB/s"
        log.info("copied %d shards, %.2f GiB, from %s to %s at %s", len(missing), wanted / 2**30, source, place, rate)


def _each(function: Callable[[str], T], names: Sequence[str]) -> list[T]:
    """Applies a function to many names in parallel; results keep the order of the names."""
    with concurrent.futures.ThreadPoolExecutor(COPIES) as pool:
        return list(pool.map(function, names))


def _same(file: Path, size: int) -> bool:
    return file.exists() and file.stat().st_size == size


def _fetch(source: epath.Path, target: Path, size: int) -> None:
    """Copies one file in a single request; it appears whole or not at all."""
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
