"""Oriented boxes in the format of the YOLO programs (Ultralytics' OBB format).

images/{train,val}/P1.png
labels/{train,val}/P1.txt      class x1 y1 x2 y2 x3 y3 x4 y4, the class by its number, corners from 0 to 1
data.yaml (or any other .yaml) names: a list, or numbers and names
"""

from typing import Any

import numpy as np
import yaml
from etils import epath

from scaling.core.errors import UserError
from scaling.data.dota_text import Objects, lines_of, number_in, unfit
from scaling.data.sources.base import Source
from scaling.data.sources.files import is_image
from scaling.data.sources.listing import SPLIT_NAMES
from scaling.data.sources.objects import ObjectImages, image_size, object_images
from scaling.data.sources.pairs import FolderFiles
from scaling.data.sources.slices import no_split
from scaling.data.sources.tables import text_of_table
from scaling.data.targets import Quadrilaterals

LINE = "class x1 y1 x2 y2 x3 y3 x4 y4"


def open_yolo_obb(path: str, split: str, classes: str = "", most: str = "") -> Source:
    """Opens one split.

    Args:
      path: the folder with `images` and `labels`.
      split: one of the folders in them.
      classes: comma-separated names in the order of their numbers; by default those of the only .yaml file.
      most: largest number of objects per image in a batch.

    Raises:
      UserError: a folder, split, name or half of a pair is missing; a line cannot be read.
    """
    spec, root = f"yolo_obb:{path}", epath.Path(path)
    if not path or not (root / "images").is_dir() or not (root / "labels").is_dir():
        raise UserError(f"{spec}: no folders images and labels there; give the folder that contains them")
    names = tuple(classes.split(",")) if classes else _names(spec, root)
    inside = {SPLIT_NAMES.get(child.name.lower(), child.name): child for child in (root / "images").iterdir()}
    inside = {name: child for name, child in inside.items() if child.is_dir()}
    wanted = SPLIT_NAMES.get(split.lower(), split)
    if wanted not in (inside or ["train"]):
        raise no_split(spec, split, sorted(inside) or ["train"])
    images = inside.get(wanted, root / "images")
    labels = root / "labels" / images.name if inside else root / "labels"
    if not labels.is_dir():
        raise UserError(f"{spec}: no folder labels/{images.name} there")
    texts = FolderFiles(str(labels), lambda name: name.endswith(".txt"))
    objects = {
        name.rpartition("/")[2].removesuffix(".txt"): parse_yolo(
            text_of_table(texts.read(name)), f"{labels}/{name}", names
        )
        for name in texts.names
    }
    found = object_images(spec, FolderFiles(str(images), is_image), objects, names, most, kind="labels")
    return _Scaled(found)


class _Scaled(ObjectImages):
    """Images whose corners are fractions of the sides, converted to pixels once the size of an image is known."""

    def __init__(self, parts: ObjectImages):
        vars(self).update(vars(parts))

    def kept(self, index: int) -> dict[str, Any]:
        """The encoded picture, its boxes and the label -1."""
        kept = super().kept(index)
        return kept | {"boxes": self.boxes(index, image_size(kept["image"], self.name(index)))}

    def boxes(self, index: int, size: tuple[int, int]) -> Quadrilaterals:
        parts = self.objects[index]
        return parts._replace(corners=parts.corners * np.array(size[::-1], np.float32))


def parse_yolo(text: str, where: str, classes: tuple[str, ...]) -> Objects:
    """Reads the objects of one image, with corners as fractions of its sides.

    Raises:
      UserError: a line is not an object, or its class has no name.
    """
    corners, names = [], []
    for place, fields in lines_of(text, where):
        if len(fields) != 9:
            unfit(place, fields, LINE, as_angle=(5, 6))
        if not fields[0].isdecimal() or int(fields[0]) >= len(classes):
            raise UserError(
                f"{place}: class {fields[0]!r} must be a number below {len(classes)}, for one of {', '.join(classes)}"
            )
        values = [number_in(field, place) for field in fields[1:]]
        if max(map(abs, values)) > 2:
            raise UserError(
                f"{place}: corners up to {max(map(abs, values)):g}; they must be fractions of the image, from 0 to 1"
            )
        corners.append(values)
        names.append(classes[int(fields[0])])
    return Objects.of(corners, names, [False] * len(names))


def _names(spec: str, root: epath.Path) -> tuple[str, ...]:
    files = sorted(child for child in root.iterdir() if child.suffix in (".yaml", ".yml"))
    if len(files) != 1:
        raise UserError(
            f"{spec}: {len(files)} .yaml files there; the names of the classes are ambiguous; give ?classes=NAME,NAME"
        )
    try:
        names = (yaml.safe_load(files[0].read_text()) or {}).get("names")
    except (yaml.YAMLError, AttributeError) as e:
        raise UserError(f"{spec}: {files[0].name} must be a mapping; correct it") from e
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names or len({str(name) for name in names}) < len(names):
        raise UserError(
            f"{spec}: {files[0].name}: `names` must be a list of names, or a mapping from numbers, from 0, to names; "
            "correct it"
        )
    return tuple(map(str, names))
