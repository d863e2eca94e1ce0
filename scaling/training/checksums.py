"""Checksums of the files of a checkpoint, in a file among them. Orbax's formats have checksums for their indices, but
none for the numbers: without these, a flipped bit on a disk is another weight.

They are made by one process, which reads the checkpoint back before Orbax renames it, so within the time that Orbax is
given to write one (an hour, `scaling.training.checkpoints`): from a disk of 200 MB/s at most 700 GB.

In a bucket there are none: its store keeps a checksum of every object, and reading all of them back would be a
download. A checkpoint without the file is read unverified, as those written before it existed are.
"""

import concurrent.futures
import json
import zlib
from collections.abc import Collection
from pathlib import Path

from scaling.core.errors import TemporaryError, first_line
from scaling.core.files import write_whole

FILE = "checksums.json"
_BLOCK = 1 << 22  # bytes read at once
_THREADS = 8


def write_checksums(folder: Path) -> None:
    """Writes the CRC-32 of every file of a checkpoint into its folder, replacing an earlier file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        sums = dict(
            zip((path.relative_to(folder).as_posix() for path in files), pool.map(_checksum, files), strict=True)
        )
    write_whole(folder / FILE, json.dumps(sums, indent=0) + "\n")


def damaged_file(folder: Path, parts: Collection[str], known: Collection[str] = ()) -> str:
    """The first file of these parts (files or folders of a checkpoint) that is missing or was changed; empty if none
    is, or if the checkpoint has no checksums. Files of the `known` parts are not read.

    Raises:
      TemporaryError: a file is there but cannot be read (a disk or network that fails, too many open files, no
        permission), which says nothing about its content.
    """
    try:
        sums = dict(json.loads((folder / FILE).read_text()))
        wanted = [name for name in sums if _within(name, parts) and not _within(name, known)]
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(_checksum_if_there, (folder / name for name in wanted))
            return next((name for name, value in zip(wanted, found, strict=True) if value != sums[name]), "")
    except FileNotFoundError:
        return ""
    except (ValueError, TypeError):
        return FILE
    except OSError as e:
        raise TemporaryError(
            f"{e.filename or folder}: cannot be read ({e.strerror or first_line(e)}), so the checkpoint is unverified; "
            "make it readable, and start the same command again"
        ) from e


def _within(name: str, parts: Collection[str]) -> bool:
    return any(f"{name}/".startswith(f"{part}/") for part in parts)


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def _checksum_if_there(path: Path) -> int | None:
    try:
        return _checksum(path)
    except FileNotFoundError:
        return None
