"""Image files in folders, as they were downloaded, with classes from folder names."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.core.files import in_bucket
from scaling.data.images import ARRAY, SUFFIXES, CorruptImage
from scaling.data.sources.base import Info, Stored
from scaling.data.sources.listing import Listing, shown
from scaling.data.sources.outputs import check_images_folder

log = logging.getLogger(__name__)


def is_image(name: str) -> bool:
    """True if the file name ends like a picture format that can be decoded."""
    return name.lower().endswith(SUFFIXES)


def image_groups(groups: Iterable[tuple[str, list[str]]], root: str) -> Iterator[tuple[str, list[str]]]:
    """Folders and the images in each. Arrays are images only in folders without pictures; beside pictures they are
    taken for data about them (labels, features), which is logged once.
    """
    said = False
    for folder, names in groups:
        pictures = [name for name in names if is_image(name)]
        if pictures and len(pictures) < len(names) and not said:
            said, first = True, next(name for name in names if not is_image(name))
            place = shown(f"{folder}/{first}" if folder else first)
            log.warning("%s: arrays beside pictures are not read as images, first %s", root, place)
        yield folder, pictures or names


def image_or_array(name: str) -> bool:
    """True if the file name ends like one of the formats that can be decoded; see `image_groups`."""
    return is_image(name) or name.lower().endswith(ARRAY)


class Folder(Stored):
    """Image files in class folders at any depth, or in one flat folder (no labels); local or in a bucket."""

    def __init__(self, path: str, split: str):
        self.root = path
        if not path or not epath.Path(self.root).is_dir():
            raise UserError(f"folder:{path}: no such folder; give one that exists")
        check_images_folder(f"folder:{path}", self.root)
        groups = image_groups(walk(self.root, image_or_array), f"folder:{path}")
        self._listing = Listing(groups, split, f"folder:{path}")
        self.info, self.split = Info(self._listing.class_names), self._listing.split

    def __len__(self) -> int:
        return len(self._listing)

    @property
    def labels(self) -> np.ndarray:
        """Label of every image, int32; -1 if it has none."""
        return self._listing.labels

    def stored(self, index: int) -> tuple[bytes, int]:
        """The bytes of the file and the label."""
        path = f"{self.root}/{self._listing.path(index)}"
        try:
            if in_bucket(path):
                return epath.Path(path).read_bytes(), self._listing.label(index)
            with open(path, "rb") as file:  # several times cheaper than through epath
                return file.read(), self._listing.label(index)
        except OSError as error:
            raise CorruptImage(self.name(index), error.strerror or str(error)) from error

    def state(self, index: int) -> bytes | None:
        """A state that changes when the file does: its path, size and time. None in a bucket, where the query is
        slow.
        """
        if in_bucket(self.root):
            return None
        try:
            file = os.path.abspath(os.path.join(self.root, self._listing.path(index)))
            found = os.stat(file)
        except OSError:
            return b""
        return os.fsencode(file) + f"|{found.st_size}|{found.st_mtime_ns}".encode()

    def name(self, index: int) -> str:
        return self._listing.name(index)


def walk(root: str, wanted: Callable[[str], bool] = is_image) -> Iterator[tuple[str, list[str]]]:
    """Every folder below the root, and the files in it whose names are wanted. Links are followed, except to a folder
    that contains them.
    """
    pending: list[tuple[str, str, tuple[str, ...]]] = [("", "" if in_bucket(root) else os.path.realpath(root), ())]
    while pending:
        folder, real, above = pending.pop()
        files = []
        for name, is_folder, is_link in _entries(f"{root}/{folder}" if folder else root, wanted):
            path = f"{folder}/{name}" if folder else name
            if not is_folder:
                files += [name] if wanted(name) else []
            elif not is_link:
                pending.append((path, f"{real}/{name}", above))
            else:
                target, passed = os.path.realpath(f"{real}/{name}"), (*above, f"{real}/")
                if not any(place.startswith(f"{target.rstrip('/')}/") for place in passed):
                    pending.append((path, target, passed))
        yield folder, files


def _entries(path: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bool, bool]]:
    """Names in a folder, whether each is a folder and whether it is a link; hidden ones are left out."""
    if not in_bucket(path):
        try:
            with os.scandir(path) as found:
                for entry in found:
                    if not entry.name.startswith("."):
                        is_link = entry.is_symlink()  # a dangling or circular link is not a folder
                        yield entry.name, os.path.isdir(entry.path) if is_link else entry.is_dir(), is_link
        except OSError as error:
            raise UserError(f"folder:{shown(path)}: {error.strerror}; make it readable, or move it away") from error
        return
    for child in epath.Path(path).iterdir():
        # In a bucket every query is a request: a name that looks like a wanted file is taken for one.
        yield child.name, not wanted(child.name) and child.is_dir(), False
