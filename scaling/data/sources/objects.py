"""Pictures with oriented boxes around their objects, as a source; code shared by the readers of such data sets."""

import io
import logging
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from scaling.boxes.polygons import polygon_area
from scaling.core.errors import UserError
from scaling.data.box_classes import unknown_class
from scaling.data.dota_text import Objects
from scaling.data.images import decode
from scaling.data.sources.base import Info, Stored
from scaling.data.sources.listing import shown
from scaling.data.sources.pairs import Files, by_name
from scaling.data.targets import Boxes, Quadrilaterals

_PNG = b"\x89PNG\r\n\x1a\n"

ROOM = 256  # objects per image in a batch, unless the objective takes another number


class ObjectImages(Stored):
    """Pictures and the objects in each of them.

    Args:
      images: container of the files.
      names: names of the files.
      objects: objects in each file.
      target: target that declares the classes.

    Attributes:
      objects: see Args.
    """

    def __init__(self, images: Files, names: Sequence[str], objects: Sequence[Quadrilaterals], target: Boxes):
        self._images, self._names, self.objects = images, list(names), list(objects)
        self.info = Info(targets=(target,))

    def __len__(self) -> int:
        return len(self._names)

    def kept(self, index: int) -> dict[str, Any]:
        """The encoded picture, its boxes and the label -1."""
        return {"image": self._images.read(self._names[index]), "label": -1, "boxes": self.objects[index]}

    def boxes(self, index: int, size: tuple[int, int]) -> Quadrilaterals:
        """The objects of an image of this height and width, in its pixels."""
        return self.objects[index]

    def name(self, index: int) -> str:
        return shown(self._names[index])


class Unlabelled(Stored):
    """Pictures whose objects are not known."""

    def __init__(self, images: Files):
        self._images, self.info = images, Info()

    def __len__(self) -> int:
        return len(self._images.names)

    def stored(self, index: int) -> tuple[bytes, int]:
        return self._images.read(self._images.names[index]), -1

    def name(self, index: int) -> str:
        return shown(self._images.names[index])


def object_images(
    spec: str, images: Files, objects: Mapping[str, Objects], classes: Sequence[str], most: str = "", kind: str = "text"
) -> ObjectImages:
    """Pairs pictures with objects of the same names.

    Args:
      spec: spec of the source, for messages.
      images: container of the picture files.
      objects: objects by the name of the picture, without folder and ending.
      classes: class names, in the order of their indices.
      most: largest number of objects per image in a batch; empty for 256.
      kind: name of the containers of objects, for messages.

    Raises:
      UserError: a picture without a file of objects or vice versa, or an unknown class.
    """
    files = by_name(spec, [name.rpartition("/")[2] for name in images.names])
    paths = {name.rpartition("/")[2]: name for name in images.names}
    if not files:
        raise UserError(f"{spec}: no images there")
    for mine, theirs, what, other in ((files, objects, "images", kind), (objects, files, f"{kind} files", "image")):
        if alone := sorted(mine.keys() - theirs.keys()):
            raise UserError(
                f"{spec}: {len(alone)} of {len(mine)} {what} have no {other} of the same name, "
                f"first {shown(alone[0])}; an image without objects needs an empty one"
            )
    names = sorted(files)
    target = Boxes(tuple(classes), _room(spec, most))
    found = [_numbered(spec, name, objects[name], target.classes) for name in names]
    without_area = _tell(spec, names, found)
    real = [quadrilaterals.taken(~flat) for quadrilaterals, flat in zip(found, without_area, strict=True)]
    return ObjectImages(images, [paths[files[name]] for name in names], real, target)


def image_size(data: bytes, name: str) -> tuple[int, int]:
    """Height and width of an image file, from its header if possible. Raises CorruptImage."""
    if data.startswith(_PNG) and len(data) >= 24:  # any size: Pillow refuses the largest images of DOTA
        width, height = struct.unpack(">II", data[16:24])
        return height, width
    try:
        width, height = Image.open(io.BytesIO(data)).size
    except (OSError, Image.DecompressionBombError):
        height, width, _ = decode(data, name).shape
    return height, width


def _room(spec: str, most: str) -> int:
    if most and not (most.isdecimal() and int(most)):
        raise UserError(f"{spec}: most={most}: must be a number of objects")
    return int(most or ROOM)


def _numbered(spec: str, name: str, objects: Objects, classes: Sequence[str]) -> Quadrilaterals:
    numbers = {known: number for number, known in enumerate(classes)}
    for unknown in (one for one in objects.names if one not in numbers):
        what = unknown_class(f"{spec}: {shown(name)}", unknown, classes)
        raise UserError(f"{what}; others are named ?classes=NAME,NAME")
    return Quadrilaterals.of(objects.corners, [numbers[one] for one in objects.names], objects.difficult)


def _tell(spec: str, names: Sequence[str], found: Sequence[Quadrilaterals]) -> list[np.ndarray]:
    """Masks of the objects of each image that have no area, which would make a loss infinite. Logs their number."""
    flat = [polygon_area(quadrilaterals.corners) == 0 for quadrilaterals in found]
    dropped, everything = (sum(map(len, of)) for of in ([np.flatnonzero(f) for f in flat], flat))
    empty = sum(not len(of) for of in flat)
    logging.info("%s: %d images, %d of them without objects; %d objects", spec, len(found), empty, everything - dropped)
    if dropped:
        first = next(name for name, f in zip(names, flat, strict=True) if f.any())
        logging.warning(
            "%s: %d of %d objects have no area and are left out, first in %s", spec, dropped, everything, first
        )
    return flat
