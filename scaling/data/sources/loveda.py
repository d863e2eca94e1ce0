"""LoveDA (Wang et al. 2021, Junjue-Wang/LoveDA) as it is downloaded.

    {Train,Val,Test}/{Urban,Rural}/images_png/N.png    1024 x 1024, RGB, 0.3 m
    {Train,Val}/{Urban,Rural}/masks_png/N.png          0 no data, 1 background … 7 agriculture

The labels are counted from 0 here, as its server and mmsegmentation do, and no data is ignored. The labels of the test
split are not public: its images have no masks.
"""

from collections.abc import Sequence

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage
from scaling.data.masks import decode_mask, without_zero
from scaling.data.sources.base import Source
from scaling.data.sources.files import Folder
from scaling.data.sources.pairs import FolderFiles, Pairs, paired
from scaling.data.sources.slices import no_split
from scaling.data.targets import Masks

CLASSES = ("background", "building", "road", "water", "barren", "forest", "agriculture")
AREAS = ("Urban", "Rural")
IGNORE = 255

_SPLITS = {"train": "Train", "val": "Val", "validation": "Val", "test": "Test"}


def open_loveda(path: str, split: str, areas: str = "") -> Source:
    """Opens one split.

    Args:
      path: the folder with `Train`, `Val` and `Test`.
      split: `train`, `validation` (or `val`) or `test`.
      areas: `Urban` or `Rural`; by default both, the urban images first.

    Raises:
      UserError: not such a folder, or one without the split; `areas` has another value; a pair is incomplete.
    """
    spec, root = f"loveda:{path}", epath.Path(path)
    if areas and areas.capitalize() not in AREAS:
        raise UserError(f"{spec}: areas={areas}: {' or '.join(AREAS)}")
    there = [name for name, folder in _SPLITS.items() if (root / folder).is_dir()]
    if not path or not there:
        raise UserError(f"{spec}: no folders Train, Val or Test there; give the folder that contains them")
    if split not in there:
        raise no_split(spec, split, [name for name in there if name != "val"])
    top = root / _SPLITS[split]
    taken = [areas.capitalize()] if areas else list(AREAS)
    if absent := [area for area in taken if not (top / area / "images_png").is_dir()]:
        raise UserError(f"{spec}: no {_SPLITS[split]}/{absent[0]}/images_png there; unpack the whole download")
    if split == "test" and not any((top / area / "masks_png").is_dir() for area in taken):
        return _Unlabelled(str(top), "train")
    images, labels = (FolderFiles(str(top), _png) for _ in range(2))
    pairs: list[tuple[str, str]] = []
    for area in taken:
        of_images, of_masks = (_below(images.names, f"{area}/{kind}/") for kind in ("images_png", "masks_png"))
        names = paired(f"{spec}: {_SPLITS[split]}/{area}", of_images, of_masks)
        pairs += [
            (f"{area}/images_png/{image}", f"{area}/masks_png/{mask}")
            for image, mask in sorted(names.values(), key=_number)
        ]
    return Pairs(spec, images, labels, pairs, Masks(CLASSES, IGNORE), labels_of)


def labels_of(data: bytes, name: str) -> np.ndarray:
    """Labels of a file as downloaded, counted from 0: uint8 [height, width]. Raises CorruptImage."""
    stored = decode_mask(data, name)
    if stored.max() > len(CLASSES):
        raise CorruptImage(name, f"has a label {stored.max()}; LoveDA's are 0 to {len(CLASSES)}")
    return without_zero(stored, IGNORE).astype(np.uint8)


class _Unlabelled(Folder):
    """The images of the test split, which have no class: their folders are areas."""

    def __init__(self, path: str, split: str):
        super().__init__(path, split)
        self.info = type(self.info)()

    def stored(self, index: int) -> tuple[bytes, int]:
        return super().stored(index)[0], -1


def _below(names: Sequence[str], folder: str) -> list[str]:
    return [name.removeprefix(folder) for name in names if name.startswith(folder)]


def _png(name: str) -> bool:
    return name.lower().endswith(".png")


def _number(pair: tuple[str, str]) -> tuple[int, str]:
    stem = pair[0].rpartition(".")[0]
    return (int(stem) if stem.isdecimal() else 0), stem
