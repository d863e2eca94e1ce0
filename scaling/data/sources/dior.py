"""DIOR-R (Cheng et al. 2022) as it is downloaded.

JPEGImages-trainval/00001.jpg, JPEGImages-test/11726.jpg       800 x 800
ImageSets/Main/{train,val,test}.txt                            names of the images, one a line
Annotations/Oriented Bounding Boxes/00001.xml                  objects with `robndbox`, four corners
"""

import xml.etree.ElementTree as ElementTree

from etils import epath

from scaling.core.errors import UserError
from scaling.data.box_classes import DIOR_CLASSES
from scaling.data.dota_text import Objects, number_in
from scaling.data.sources.base import Source
from scaling.data.sources.files import is_image
from scaling.data.sources.objects import object_images
from scaling.data.sources.pairs import FolderFiles
from scaling.data.sources.slices import no_split
from scaling.data.sources.tables import text_of_table

_FOLDERS = {"train": "trainval", "val": "trainval", "validation": "trainval", "test": "test"}
_LISTS = {"validation": "val"}
_CORNERS = [
    f"{axis}_{place}" for place in ("left_top", "right_top", "right_bottom", "left_bottom") for axis in ("x", "y")
]


def open_dior(path: str, split: str, most: str = "") -> Source:
    """Opens one split.

    Args:
      path: the folder with `Annotations`, `ImageSets` and `JPEGImages-trainval`.
      split: `train`, `validation` (or `val`) or `test`.
      most: largest number of objects per image in a batch.

    Raises:
      UserError: a folder, list, image or description is missing or unreadable; a class is unknown.
    """
    spec, root = f"dior:{path}", epath.Path(path)
    if not path or not (root / "ImageSets/Main").is_dir():
        raise UserError(f"{spec}: no folder ImageSets/Main there; give the folder that contains it")
    there = [name for name in ("train", "validation", "test") if _list(root, name).is_file()]
    if split not in _FOLDERS or not _list(root, split).is_file():
        raise no_split(spec, split, there)
    names = _list(root, split).read_text().split()
    if twice := next((name for name in names if names.count(name) > 1), "") if len(set(names)) < len(names) else "":
        raise UserError(f"{spec}: {_list(root, split).name}: {twice} is listed twice; keep one")
    if not names:
        raise UserError(f"{spec}: {_list(root, split).name} names no images")
    wanted, folder = set(names), f"JPEGImages-{_FOLDERS[split]}"
    if not (root / folder).is_dir():
        raise UserError(f"{spec}: no folder {folder} there; unpack the images into it")
    images = FolderFiles(str(root / folder), lambda name: is_image(name) and name.rpartition(".")[0] in wanted)
    if missing := wanted - {name.rpartition("/")[2].rpartition(".")[0] for name in images.names}:
        raise UserError(
            f"{spec}: {folder} lacks {len(missing)} of {len(wanted)} images, first {min(missing)}; add them"
        )
    objects = {name: _read(spec, root / f"Annotations/Oriented Bounding Boxes/{name}.xml") for name in names}
    return object_images(spec, images, objects, DIOR_CLASSES, most, kind="xml")


def _list(root: epath.Path, split: str) -> epath.Path:
    return root / f"ImageSets/Main/{_LISTS.get(split, split)}.txt"


def _read(spec: str, file: epath.Path) -> Objects:
    if not file.is_file():
        raise UserError(f"{spec}: no {file.parent.name}/{file.name}; every image needs one, even without objects")
    return parse_dior(text_of_table(file.read_bytes()), f"{spec}: {file.name}")


def parse_dior(text: str, where: str) -> Objects:
    """Reads the objects of one image; names of classes in small letters, as mmrotate does.

    Raises:
      UserError: not a description of this form, or a number in it cannot be read.
    """
    try:
        found = ElementTree.fromstring(text).findall("object")
    except ElementTree.ParseError as e:
        raise UserError(f"{where}: {e}; repair the file") from e
    corners, names, difficult = [], [], []
    for i, one in enumerate(found, 1):
        place = f"{where}: object {i}"
        if one.find("robndbox") is None:
            raise UserError(f"{place} has no robndbox; give the descriptions of Oriented Bounding Boxes")
        corners.append([number_in(_text(one, f"robndbox/{corner}", place), place) for corner in _CORNERS])
        names.append(_text(one, "name", place).lower())
        difficult.append((one.findtext("difficult") or "0").strip() not in ("", "0"))
    return Objects.of(corners, names, difficult)


def _text(one: ElementTree.Element, tag: str, place: str) -> str:
    text = (one.findtext(tag) or "").strip()
    if not text:
        raise UserError(f"{place} has no {tag}; repair the file")
    return text
