"""Image files in a zip archive, with classes from its folders or from a table; and its entries, read in any order."""

import contextlib
import functools
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from etils import epath

from scaling.core.errors import UserError, first_line
from scaling.core.files import DAMAGED_ZIP, in_bucket
from scaling.data.images import CorruptImage
from scaling.data.sources.base import Info, Stored
from scaling.data.sources.files import image_groups, image_or_array, is_image
from scaling.data.sources.listing import Listing, shown
from scaling.data.sources.tables import labels_of_table

_FREE, _TIMES = 1 << 30, 100  # bytes that any entry may unpack to, and times its stored size beyond them
_LOOKED_AT = 10_000  # entries that are not read whose names are checked
_END = (1 << 16) + 22  # bytes behind the directory at most
_WINDOWS = 0  # an archive's code for the system it was made on


class Zip(Stored):
    """Image files in a zip archive.

    A table with the columns `name,label[,split]` lists the entries and their labels: the one named by `labels`, else
    `labels.csv` beside the archive. Without a table, folders inside the archive are read as by `Folder`.
    """

    def __init__(self, path: str, split: str, labels: str = ""):
        self.split = split
        self.path = path
        if not epath.Path(self.path).is_file():
            raise UserError(f"zip:{path}: no such file; give one that exists")
        entries = zip_entries(self.path, image_or_array)
        table = epath.Path(labels) if labels else epath.Path(self.path).parent / "labels.csv"
        if labels or table.exists():
            names, classes, class_names = labels_of_table(table, split)
            names = [name if name in entries else name.replace("\\", "/") for name in names]
        else:
            listing = Listing(image_groups(_by_folder(entries), f"zip:{path}"), split, f"zip:{path}")
            names = [listing.path(i) for i in range(len(listing))]
            classes = [listing.label(i) for i in range(len(listing))]
            class_names, self.split = listing.class_names, listing.split
        if absent := [name for name in names if name not in entries]:
            raise UserError(f"{table}: {len(absent)} of its names are not in {path}, first {absent[0]!r}")
        self.info = Info(class_names)
        self._names = np.array([name.encode() for name in names])
        self.labels = np.array(classes, np.int32)
        self._places = np.array([entries[name] for name in names], np.int64)  # [N, 6], see `zip_entries`
        self._reader = Reader(self.path)

    def __len__(self) -> int:
        return len(self._names)

    def stored(self, index: int) -> tuple[bytes, int]:
        """The bytes of the entry, its checksum verified, and the label."""
        return read_entry(self._reader, self._places[index], self.name(index)), int(self.labels[index])

    def state(self, index: int) -> bytes:
        """A state that changes when the entry does: its offset, size and checksum."""
        return self._places[index][:4].tobytes()

    def name(self, index: int) -> str:
        return shown(bytes(self._names[index]).decode())


def read_entry(reader: "Reader", place: Iterable[int], name: str) -> bytes:
    """The bytes of an entry of an archive, see `zip_entries`. Raises CorruptImage with this name."""
    offset, size, method, checksum, unpacked, named = map(int, place)
    if unpacked > max(_FREE, _TIMES * size):
        raise CorruptImage(name, f"would unpack from {size:,} bytes to {unpacked / 2**30:,.1f} GiB")
    if offset < 0 or offset + 30 + size > reader.size:
        raise CorruptImage(name, "the archive is truncated")
    header = reader.read(offset, 30)
    length, extra = struct.unpack("<HH", header[26:30])
    rest = reader.read(offset + 30, length + extra + size)
    if zlib.crc32(rest[:length]) != named:
        raise CorruptImage(name, "the archive gives it two names")
    data = rest[length + extra :]
    try:
        data = zlib.decompressobj(-15).decompress(data, unpacked + 1) if method == zipfile.ZIP_DEFLATED else data
    except zlib.error as error:
        raise CorruptImage(name, str(error)) from error
    if zlib.crc32(data) != checksum:
        raise CorruptImage(name, "the archive's checksum does not match")
    return data


class Reader:
    """Positioned reads of one file from many threads. Opened at the first read, and again in every process."""

    def __init__(self, path: str):
        self.path = path
        self._file: Any = None
        self._lock = threading.Lock()

    def __reduce__(self):
        return Reader, (self.path,)

    @functools.cached_property
    def size(self) -> int:
        """Bytes of the file."""
        return int(epath.Path(self.path).stat().length)

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            if self._file is None:
                remote = in_bucket(self.path)
                self._file = epath.Path(self.path).open("rb") if remote else open(self.path, "rb")  # noqa: SIM115
            if in_bucket(self.path):
                self._file.seek(offset)
                return self._file.read(size)
        return os.pread(self._file.fileno(), size, offset)


def zip_entries(path: str, wanted: Callable[[str], bool] = is_image) -> dict[str, tuple[int, ...]]:
    """Offset, stored size, method, checksum, size and checksum of the stored name of every wanted file in the archive,
    by name. Raises UserError.
    """
    try:
        with epath.Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            everything = archive.infolist()
            _check_count(file, len(everything))
            entries = [entry for entry in everything if wanted(entry.filename)]
            last = {entry.filename: entry for entry in entries}
            replaced = [entry for entry in entries if last[entry.filename] is not entry]
            ignored = [entry for entry in everything if not wanted(entry.filename) or _hidden(entry.filename)]
            _check_names(file, replaced + ([] if in_bucket(path) else ignored[:_LOOKED_AT]))
    except UnicodeDecodeError as error:
        raise UserError(f"zip:{path}: a name is marked as UTF-8 and is not ({error}); pack the archive anew") from error
    except DAMAGED_ZIP as error:
        raise UserError(f"zip:{path}: {first_line(error)}; is the download complete?") from error
    except OSError as error:  # of a position in the file that cannot be
        raise UserError(f"zip:{path}: cannot be read ({error.strerror or error}); is the download complete?") from error
    for entry in entries:
        if max(entry.header_offset, entry.compress_size, entry.file_size) >= 1 << 63:
            raise UserError(f"zip:{path}: the size of {entry.filename} cannot be; is the download complete?")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise UserError(f"zip:{path}: {entry.filename} is encrypted or not plain deflate; pack the archive anew")
    separated = any("/" in entry.filename for entry in entries)
    return {
        _entry_name(e, separated): (e.header_offset, e.compress_size, e.compress_type, e.CRC, e.file_size, _named(e))
        for e in entries
    }


def _check_count(file: Any, found: int) -> None:
    """Raises BadZipFile if the end of an archive counts other entries than its directory has; zipfile does not look."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END))
    tail = file.read()
    (count,) = struct.unpack_from("<H", tail, tail.rfind(b"PK\5\6") + 10)
    if count not in (found & 0xFFFF, 0xFFFF):  # larger counts stand elsewhere, or only their lowest 16 bits are kept
        raise zipfile.BadZipFile(f"its directory has {found:,} of {count:,} entries")


def _check_names(file: Any, others: list[zipfile.ZipInfo]) -> None:
    """Raises BadZipFile if an entry has another name where it begins: the directory may have another ending for it, or
    the name of a later entry, which takes its place.
    """
    for entry in others:
        file.seek(entry.header_offset)
        header = file.read(30)
        length = int.from_bytes(header[26:28], "little")
        if zlib.crc32(file.read(length)) != _named(entry):
            raise zipfile.BadZipFile(f"{entry.filename} has two names")


def _named(entry: zipfile.ZipInfo) -> int:
    """Checksum of the name of an entry as it is stored."""
    return zlib.crc32(entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437"))


def _entry_name(entry: zipfile.ZipInfo, separated: bool) -> str:
    """The name as text, folders separated by /. Backslashes are taken for / in an archive made on Windows, or one in
    which no name has a / (not `separated`).
    """
    name = entry.filename
    if not (entry.flag_bits & 0x800 or name.isascii()):  # most names of undeclared encoding are in UTF-8
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name if separated and entry.create_system != _WINDOWS else name.replace("\\", "/")


def _by_folder(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if not _hidden(name):
            folders.setdefault(folder, []).append(file)
    yield from folders.items()


def _hidden(name: str) -> bool:
    """Whether a file is none of the data, as on disk: `._1.jpg` is a note, not an image."""
    parts = name.split("/")
    return parts[0] == "__MACOSX" or any(part.startswith(".") and part not in (".", "..") for part in parts)
