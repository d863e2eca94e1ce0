"""Image files as they were downloaded: folders and zip archives, with classes from folder names or a table."""

import csv
import io
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from etils import epath

from scaling.data.images import SUFFIXES, CorruptImage
from scaling.data.source import Stored
from scaling.errors import UserError

# Folders of these names are splits, not classes.
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def is_image(name: str) -> bool:
    """True if the file name ends like one of the formats that can be decoded."""
    return name.lower().endswith(SUFFIXES)


class Listing:
    """Names and labels of the images of one split, a few dozen bytes per image.

    Args:
      groups: (folder relative to the root, image names in it), one pair per folder.
      split: selects the top folder of that name if any top folder is named as a split; else only `train` exists.
      root: what to call the whole in messages.
    """

    def __init__(self, groups: Iterable[tuple[str, list[str]]], split: str, root: str):
        everything = sorted((folder, sorted(names)) for folder, names in groups if names)
        if not everything:
            raise UserError(f"{root}: no images ({', '.join(SUFFIXES)})")
        tops = {folder.split("/")[0] for folder, _ in everything}
        there = {_SPLITS[top.lower()]: top for top in sorted(tops) if top.lower() in _SPLITS}
        wanted = _SPLITS.get(split.lower(), split)
        if wanted not in (there or {"train": ""}):
            raise UserError(f"{root}: no split {split!r}; there is {', '.join(there) or 'only train'}")
        # Classes are counted over all splits, so that a label means the same in each of them.
        self.class_names = tuple(sorted({leaf for folder, _ in everything if (leaf := _class_of(folder))}))
        labels = {leaf: i for i, leaf in enumerate(self.class_names)}
        mine = [(f, names) for f, names in everything if not there or f.split("/")[0] == there[wanted]]
        self.folders = [folder for folder, _ in mine]
        self._labels = np.array([labels.get(_class_of(folder), -1) for folder in self.folders], np.int32)
        self._folder_of = np.repeat(np.arange(len(mine), dtype=np.int32), [len(names) for _, names in mine])
        self._names = np.array([os.fsencode(name) for _, names in mine for name in names])

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """The path relative to the root."""
        folder = self.folders[self._folder_of[index]]
        file = os.fsdecode(bytes(self._names[index]))
        return f"{folder}/{file}" if folder else file

    @property
    def labels(self) -> np.ndarray:
        """Of every image, int32; -1 where there is none."""
        return self._labels[self._folder_of]

    def label(self, index: int) -> int:
        return int(self._labels[self._folder_of[index]])


def _class_of(folder: str) -> str:
    leaf = folder.rsplit("/", 1)[-1]
    return "" if leaf.lower() in _SPLITS else leaf


class Folder(Stored):
    """Image files in class folders at any depth, or in one flat folder (no labels); local or in a bucket."""

    def __init__(self, path: str, split: str):
        self.root = os.path.expanduser(path)
        if not path or not epath.Path(self.root).is_dir():
            raise UserError(f"folder:{path}: no such folder")
        self._listing = Listing(_walk(self.root), split, f"folder:{path}")
        self.class_names = self._listing.class_names

    def __len__(self) -> int:
        return len(self._listing)

    @property
    def labels(self) -> np.ndarray:
        """Of every image, int32; -1 where there is none."""
        return self._listing.labels

    def stored(self, index: int) -> tuple[bytes, int]:
        """The bytes of the file and the label."""
        path = f"{self.root}/{self.name(index)}"
        try:
            if "://" in path:
                return epath.Path(path).read_bytes(), self._listing.label(index)
            with open(path, "rb") as file:  # several times cheaper than through epath
                return file.read(), self._listing.label(index)
        except OSError as error:
            raise CorruptImage(self.name(index), error.strerror or str(error)) from error

    def state(self, index: int) -> bytes | None:
        """Changes when the file does: its path, its size, its time. None in a bucket, where asking is dear."""
        if "://" in self.root:
            return None
        try:
            file = os.path.abspath(os.path.join(self.root, self.name(index)))
            found = os.stat(file)
        except OSError:
            return b""
        return os.fsencode(file) + f"|{found.st_size}|{found.st_mtime_ns}".encode()

    def name(self, index: int) -> str:
        return self._listing.name(index)


def _walk(root: str) -> Iterator[tuple[str, list[str]]]:
    pending = [""]
    while pending:
        folder = pending.pop()
        images = []
        for name, is_folder in _entries(f"{root}/{folder}" if folder else root):
            if is_folder:
                pending.append(f"{folder}/{name}" if folder else name)
            elif is_image(name):
                images.append(name)
        yield folder, images


def _entries(path: str) -> Iterator[tuple[str, bool]]:
    """Names in a folder and whether each is a folder; hidden ones are left out."""
    if "://" not in path:
        with os.scandir(path) as found:
            yield from ((entry.name, entry.is_dir()) for entry in found if not entry.name.startswith("."))
        return
    for child in epath.Path(path).iterdir():
        # In a bucket every question is a request: what is named as an image is not asked about.
        yield child.name, not is_image(child.name) and child.is_dir()


class Zip(Stored):
    """Image files in a zip archive.

    A table with the columns `name,label[,split]` says which entries there are and what they show: the one named by
    `labels`, else `labels.csv` beside the archive. Without one, folders inside the archive are read as `Folder` reads
    them.
    """

    def __init__(self, path: str, split: str, labels: str = ""):
        self.path = os.path.expanduser(path)
        if not epath.Path(self.path).is_file():
            raise UserError(f"zip:{path}: no such file")
        entries = _zip_entries(self.path)
        table = epath.Path(os.path.expanduser(labels)) if labels else epath.Path(self.path).parent / "labels.csv"
        if labels or table.exists():
            names, classes, self.class_names = _read_table(table, split)
        else:
            listing = Listing(_by_folder(entries), split, f"zip:{path}")
            names = [listing.name(i) for i in range(len(listing))]
            classes = [listing.label(i) for i in range(len(listing))]
            self.class_names = listing.class_names
        if absent := [name for name in names if name not in entries]:
            raise UserError(f"{table}: {len(absent)} of its names are not in {path}, first {absent[0]!r}")
        self._names = np.array([name.encode() for name in names])
        self.labels = np.array(classes, np.int32)
        self._places = np.array([entries[name] for name in names], np.int64)  # offset, stored size, method, checksum
        self._reader = _Reader(self.path)

    def __len__(self) -> int:
        return len(self._names)

    def stored(self, index: int) -> tuple[bytes, int]:
        """The bytes of the entry, its checksum verified, and the label."""
        offset, size, method, checksum = (int(value) for value in self._places[index])
        header = self._reader.read(offset, 30)
        if len(header) < 30:
            raise CorruptImage(self.name(index), "the archive is truncated")
        data = self._reader.read(offset + 30 + sum(struct.unpack("<HH", header[26:30])), size)
        try:
            data = zlib.decompress(data, -15) if method == zipfile.ZIP_DEFLATED else data
        except zlib.error as error:
            raise CorruptImage(self.name(index), str(error)) from error
        if zlib.crc32(data) != checksum:
            raise CorruptImage(self.name(index), "the archive's checksum does not match")
        return data, int(self.labels[index])

    def state(self, index: int) -> bytes:
        """Changes when the entry does: its place, size and checksum."""
        return self._places[index].tobytes()

    def name(self, index: int) -> str:
        return bytes(self._names[index]).decode()


class _Reader:
    """Positioned reads of one file from many threads. Opened at the first read, and again in every process."""

    def __init__(self, path: str):
        self.path = path
        self._file: Any = None
        self._lock = threading.Lock()

    def __reduce__(self):
        return _Reader, (self.path,)

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            if self._file is None:
                remote = "://" in self.path
                self._file = epath.Path(self.path).open("rb") if remote else open(self.path, "rb")  # noqa: SIM115
            if "://" in self.path:
                self._file.seek(offset)
                return self._file.read(size)
        return os.pread(self._file.fileno(), size, offset)


def _zip_entries(path: str) -> dict[str, tuple[int, int, int, int]]:
    """Offset, stored size, method and checksum of every image in the archive."""
    try:
        with epath.Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if is_image(entry.filename)]
    except zipfile.BadZipFile as error:
        raise UserError(f"zip:{path}: {error}; is the download complete?") from error
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise UserError(f"zip:{path}: {entry.filename} is encrypted or not plain deflate; pack the archive anew")
    return {e.filename: (e.header_offset, e.compress_size, e.compress_type, e.CRC) for e in entries}


def _by_folder(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if not name.startswith("__MACOSX/"):
            folders.setdefault(folder, []).append(file)
    yield from folders.items()


def _read_table(table: epath.Path, split: str) -> tuple[list[str], list[int], tuple[str, ...]]:
    """Names and labels of one split from a `labels.csv`, and the class names over all splits."""
    if not table.is_file():
        raise UserError(f"{table}: there is no such table of labels")
    reader = csv.DictReader(io.StringIO(table.read_text()))
    if missing := {"name", "label"} - set(reader.fieldnames or ()):
        raise UserError(f"{table}: no column {', '.join(sorted(missing))}; it has {', '.join(reader.fieldnames or ())}")
    rows = list(reader)
    class_names = tuple(sorted({row["label"] for row in rows} - {""}))
    labels = {"": -1} | {name: i for i, name in enumerate(class_names)}
    there = sorted({row.get("split") or "train" for row in rows})
    chosen = [row for row in rows if (row.get("split") or "train") == split]
    if not chosen:
        raise UserError(f"{table}: no split {split!r}; there is {', '.join(there) or 'nothing'}")
    return [row["name"] for row in chosen], [labels[row["label"]] for row in chosen], class_names
