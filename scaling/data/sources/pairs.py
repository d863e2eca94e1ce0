"""Pictures with a class for every pixel, as pairs of files: `images/` and `masks/`, or `images.zip` and `masks.zip`.

A picture and its mask have the same name except for the ending. Masks are PNG, TIFF or NPY files with one number per
pixel (in archives PNG and TIFF). The classes are listed in `classes.csv` beside them,

    index,name,rgb
    0,Building,#3C1098
    1,Land,#8429F6
    255,void,#000000

or in the options `classes=Building,Land` and `ignore=255`. Colours are needed only if masks are pictures of three
channels, and can also be given as `colours=3C1098,8429F6`. A row of the table whose number does not continue those
before it is the ignored label.

Splits are folders (`train/images/…` and `train/masks/…`, or `images/train/…` and `masks/train/…`) or the table
`splits.csv` with the columns `name,split`; without either, all pairs are `train`.
"""

import csv
import io
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.core.files import in_bucket
from scaling.data import masks
from scaling.data.images import CorruptImage, pixels_of
from scaling.data.masks import ColourTable, decode_mask
from scaling.data.sources.archives import Reader, read_entry, zip_entries
from scaling.data.sources.base import Info, Stored
from scaling.data.sources.files import is_image, walk
from scaling.data.sources.listing import SPLIT_NAMES, shown
from scaling.data.sources.slices import no_split
from scaling.data.sources.tables import text_of_table
from scaling.data.targets import Masks

_LOOKED_AT = 3  # pairs checked when a source is opened
_NOT_LABELS = 255  # ignored label if none is declared


class Files(Protocol):
    """Files by their path below a folder or in an archive."""

    @property
    def names(self) -> Sequence[str]: ...

    def read(self, name: str) -> bytes:
        """Raises CorruptImage."""
        ...


class FolderFiles:
    """Files below a folder, here or in a bucket."""

    def __init__(self, root: str, wanted: Callable[[str], bool]):
        self.root = root
        self.names = sorted(f"{inner}/{file}".lstrip("/") for inner, files in walk(root, wanted) for file in files)

    def read(self, name: str) -> bytes:
        path = f"{self.root}/{name}"
        try:
            return epath.Path(path).read_bytes() if in_bucket(path) else _bytes_of(path)
        except OSError as error:
            raise CorruptImage(shown(path), error.strerror or str(error)) from error


def _bytes_of(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class ZipFiles:
    """Files in an archive, by default its images."""

    def __init__(self, path: str, wanted: Callable[[str], bool] = is_image):
        self._reader, self._places = Reader(path), zip_entries(path, wanted)
        self.names = sorted(name for name in self._places if not os.path.basename(name).startswith("."))

    def read(self, name: str) -> bytes:
        return read_entry(self._reader, self._places[name], shown(f"{self._reader.path}/{name}"))


class Pairs(Stored):
    """Pairs of files as a source.

    Args:
      spec: spec of the source, for messages.
      images, masks: containers of the files.
      names: names of the two files of each pair, in order.
      target: the classes and the ignored label.
      labels: decodes a mask: its bytes and its name -> integers [height, width]; raises CorruptImage.
      bands: names of the bands of the pictures, if known.

    Raises:
      UserError: one of the first pairs is unreadable, differs in size, or has undeclared labels.
    """

    def __init__(
        self,
        spec: str,
        images: Files,
        masks: Files,
        names: Sequence[tuple[str, str]],
        target: Masks,
        labels: Callable[[bytes, str], np.ndarray] = decode_mask,
        bands: tuple[str, ...] = (),
    ):
        self.spec, self._images, self._masks, self._names, self._labels = spec, images, masks, list(names), labels
        self.info = Info(targets=(target,), bands=bands)
        for index in np.unique(np.linspace(0, len(self) - 1, _LOOKED_AT).astype(int)).tolist():
            self._look_at(index)

    def _look_at(self, index: int) -> None:
        """Checks the first pairs, before anything is computed: if the format of the masks is wrong, it is wrong in
        all of them.
        """
        try:
            kept = self.kept(index)
            height, width, _ = pixels_of(kept["image"], self.name(index)).shape
            self.info.targets[0].check(kept["mask"], height, width)
        except CorruptImage as error:
            where = error.name or f"{self.name(index)} and {shown(self._names[index][1])}"
            raise UserError(f"{self.spec}: {where}: {error.reason}; mend the pair, or take it out") from error

    def __len__(self) -> int:
        return len(self._names)

    def kept(self, index: int) -> dict[str, Any]:
        """The encoded picture, its mask and the label -1."""
        image, mask = self._names[index]
        return {
            "image": self._images.read(image),
            "label": -1,
            "mask": self._labels(self._masks.read(mask), shown(mask)),
        }

    def name(self, index: int) -> str:
        return shown(self._names[index][0])


def paired(spec: str, images: Sequence[str], masks: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The two files of every pair, by their common name.

    Raises:
      UserError: no files, a file without the other, or two of the same name.
    """
    of_images, of_masks = (by_name(spec, names) for names in (images, masks))
    if not of_images:
        raise UserError(f"{spec}: no images; they belong in images/ (or images.zip), their masks in masks/")
    for here, there, what, other in ((of_images, of_masks, "images", "mask"), (of_masks, of_images, "masks", "image")):
        if alone := sorted(here.keys() - there.keys()):
            raise UserError(
                f"{spec}: {len(alone)} of {len(here)} {what} have no {other} of the same name, "
                f"first {shown(here[alone[0]])}"
            )
    return {name: (of_images[name], of_masks[name]) for name in sorted(of_images)}


def by_name(where: str, names: Sequence[str]) -> dict[str, str]:
    """Files by their names without ending; UserError for two of the same name. `where` is for messages."""
    found: dict[str, str] = {}
    for name in names:
        bare = name.rpartition(".")[0]
        if bare in found:
            raise UserError(f"{where}: {shown(found[bare])} and {shown(name)} have the same name; keep one")
        found[bare] = name
    return found


def open_pairs(path: str, split: str, classes: str = "", ignore: str = "", colours: str = "") -> Pairs:
    """Opens a folder of pairs, see the top of this module.

    Args:
      path: the folder.
      split: one of its splits.
      classes: comma-separated names of the classes from 0; by default those of `classes.csv`.
      ignore: the ignored label; 255 if neither this option nor the table sets it.
      colours: comma-separated colours of the classes.

    Raises:
      UserError: a folder, table, split, class or half of a pair is missing or does not fit.
    """
    spec, root = f"pairs:{path}", epath.Path(path)
    if not path or not root.is_dir():
        raise UserError(f"{spec}: no such folder; give one that exists")
    target, table = _classes(spec, root, classes, ignore, colours)
    wanted, inside = SPLIT_NAMES.get(split.lower(), split), _split_folders(root)
    if inside:
        if wanted not in inside:
            raise no_split(spec, split, sorted(inside))
        root = inside[wanted]
    images, masks = _files(spec, root, "images", is_image), _files(spec, root, "masks", _is_mask)
    pairs = paired(spec, images.names, masks.names)
    taken = list(pairs) if inside else _of_split(spec, root, split, list(pairs))
    read = _Labels(table)
    return Pairs(spec, images, masks, [pairs[name] for name in taken], target, read)


class _Labels:
    """Decodes masks with a table of colours; picklable."""

    def __init__(self, table: ColourTable | None):
        self._table = table

    def __call__(self, data: bytes, name: str) -> np.ndarray:
        return decode_mask(data, name, self._table)


def _is_mask(name: str) -> bool:
    return name.lower().endswith(masks.SUFFIXES)


def _files(spec: str, root: epath.Path, name: str, wanted: Callable[[str], bool]) -> Files:
    if (root / name).is_dir():
        return FolderFiles(str(root / name), wanted)
    if (root / f"{name}.zip").is_file():
        return ZipFiles(str(root / f"{name}.zip"))
    raise UserError(f"{spec}: neither {name}/ nor {name}.zip in {root}")


def _split_folders(root: epath.Path) -> dict[str, epath.Path]:
    """The folders of splits around images and masks."""
    there = [child for child in root.iterdir() if child.name.lower() in SPLIT_NAMES and child.is_dir()]
    return {SPLIT_NAMES[child.name.lower()]: child for child in there}


def _of_split(spec: str, root: epath.Path, split: str, names: list[str]) -> list[str]:
    """The pairs of a split, by `splits.csv` or by the folders around all of them."""
    if (root / "splits.csv").is_file():
        rows = _table(root / "splits.csv", ("name", "split"))
        if absent := [row["name"] for row in rows if row["name"] not in set(names)]:
            raise UserError(f"{root / 'splits.csv'}: {len(absent)} of its names have no pair, first {absent[0]!r}")
        places = {row["name"]: row["split"] for row in rows}
        if absent := [name for name in names if name not in places]:
            raise UserError(f"{root / 'splits.csv'}: {len(absent)} pairs are in no row, first {shown(absent[0])}")
    else:
        tops = {name: name.partition("/")[0].lower() if "/" in name else "" for name in names}
        known = all(top in SPLIT_NAMES for top in tops.values())
        places = {name: top if known else "train" for name, top in tops.items()}
    spelt = {name: SPLIT_NAMES.get(place.lower(), place) for name, place in places.items()}
    taken = [name for name in names if spelt[name] == SPLIT_NAMES.get(split.lower(), split)]
    if not taken:
        raise no_split(spec, split, sorted(set(spelt.values())))
    return taken


def _table(file: epath.Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text_of_table(file.read_bytes()), newline=""))
    if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
        raise UserError(f"{file}: no column {missing[0]}; it has {', '.join(reader.fieldnames or ()) or 'none'}")
    rows = list(reader)
    for number, row in enumerate(rows, 2):
        if not all(row.get(column) for column in columns):
            raise UserError(f"{file}: row {number} lacks {' or '.join(columns)}; mend it")
    return rows


def _classes(spec: str, root: epath.Path, classes: str, ignore: str, colours: str) -> tuple[Masks, ColourTable | None]:
    """The target, and the labels by colour if colours are known."""
    names: dict[int, str] = {}
    void, table = _NOT_LABELS, dict[int, str]()
    if classes:
        names = dict(enumerate(classes.split(",")))
    elif (root / "classes.csv").is_file():
        names, void, table = _class_table(root / "classes.csv")
    else:
        raise UserError(f"{spec}: what do the labels stand for? Write classes.csv (index,name), or ?classes=NAME,NAME")
    if ignore:
        if not ignore.lstrip("-").isdecimal():
            raise UserError(f"{spec}: ignore={ignore} is not a whole number")
        void = int(ignore)
    if "" in names.values() or len(set(names.values())) < len(names):
        raise UserError(f"{spec}: classes {', '.join(names.values())}: every class needs a different name")
    if colours:
        given = colours.split(",")
        if len(given) != len(names):
            raise UserError(f"{spec}: {len(given)} colours of {len(names)} classes; give one for each")
        table = dict(enumerate(given))
    return Masks(tuple(names.values()), void), ColourTable.of(table) if table else None


def _class_table(file: epath.Path) -> tuple[dict[int, str], int, dict[int, str]]:
    """Names, the ignored label, and colours by label."""
    rows = _table(file, ("index", "name"))
    if wrong := next((row["index"] for row in rows if not row["index"].isdecimal()), ""):
        raise UserError(f"{file}: index {wrong} is not a whole number")
    names: Mapping[int, str] = {int(row["index"]): row["name"] for row in rows}
    if len(names) < len(rows):
        raise UserError(f"{file}: an index occurs twice; give every class its own")
    counted = {i: names[i] for i in itertools.takewhile(names.__contains__, itertools.count())}
    others = sorted(names.keys() - counted.keys())
    if not counted or len(others) > 1:
        raise UserError(
            f"{file}: indices {', '.join(map(str, sorted(names)))}: classes are counted 0, 1, 2 …, "
            "and one more is ignored"
        )
    coloured = {int(row["index"]): row["rgb"] for row in rows if row.get("rgb")}
    return counted, others[0] if others else _NOT_LABELS, coloured
