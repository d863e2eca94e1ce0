"""ISPRS Potsdam (2D semantic labelling contest) as it is downloaded: 38 tiles of 6000 x 6000 pixels, 5 cm.

    2_Ortho_RGB/top_potsdam_2_10_RGB.tif            or 3_Ortho_IRRG/…_IRRG.tif, or 4_Ortho_RGBIR/…_RGBIR.tif
    5_Labels_all/top_potsdam_2_10_label.tif         colours, see COLOURS
    5_Labels_all_noBoundary/top_potsdam_2_10_label_noBoundary.tif   the same with eroded borders of objects, in black

Classes are ordered as in mmsegmentation, clutter last. Scores on the full and on the eroded labels differ by several
points: state which ones you used.
"""

import re

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.data.masks import ColourTable, colour_of, decode_mask
from scaling.data.sources.base import Source
from scaling.data.sources.clips import Clips
from scaling.data.sources.pairs import FolderFiles, Pairs
from scaling.data.sources.slices import no_split
from scaling.data.targets import Masks

CLASSES = ("impervious surfaces", "building", "low vegetation", "tree", "car", "clutter")
COLOURS = ("#FFFFFF", "#0000FF", "#00FFFF", "#00FF00", "#FFFF00", "#FF0000")
IGNORE = 255

IMAGES = {
    "RGB": ("2_Ortho_RGB", "RGB", ("red", "green", "blue")),
    "IRRG": ("3_Ortho_IRRG", "IRRG", ("near infrared", "red", "green")),
    "RGBIR": ("4_Ortho_RGBIR", "RGBIR", ("red", "green", "blue", "near infrared")),
}
LABELS = {"full": ("5_Labels_all", "label"), "eroded": ("5_Labels_all_noBoundary", "label_noBoundary")}
CLUTTER = ("ignored", "class")


def _tiles(rows: dict[int, range]) -> tuple[tuple[int, int], ...]:
    return tuple((row, column) for row, columns in rows.items() for column in columns)


_TEN_TO_TWELVE, _SEVEN_TO_TWELVE = range(10, 13), range(7, 13)
SPLITS = {
    "train": _tiles(dict.fromkeys((2, 3, 4, 5), _TEN_TO_TWELVE) | dict.fromkeys((6, 7), _SEVEN_TO_TWELVE)),
    "test": _tiles(dict.fromkeys((2, 3), range(13, 15)) | dict.fromkeys((4, 5, 6), range(13, 16)) | {7: range(13, 14)}),
}

_FOREIGN = 0.01  # largest share of a tile's pixels with an unknown colour; these are ignored


def open_potsdam(
    path: str,
    split: str,
    images: str = "RGB",
    labels: str = "full",
    clutter: str = "ignored",
    without: str = "",
    clip: str = "",
) -> Source:
    """Opens the tiles of one split.

    Args:
      path: the folder with the numbered folders.
      split: `train` (24 tiles) or `test` (14).
      images: RGB, IRRG or RGBIR.
      labels: `full`, or `eroded`: without the pixels at the borders of objects.
      clutter: `ignored`, as the contest scores it, or a `class` of its own.
      without: comma-separated tiles to leave out, such as `7_10`, whose labels are known to be faulty.
      clip: side in pixels of the squares to cut tiles into, such as 512, without overlap except for the last ones; by
        default tiles stay whole. A tile takes seconds to read: prepare clips for training with `scaling.prepare`.

    Raises:
      UserError: a folder or a tile is missing, or an option has an unknown value.
    """
    spec = f"potsdam:{path}"
    if clip and not (clip.isdecimal() and int(clip)):
        raise UserError(f"{spec}: clip={clip}: must be a number of pixels")
    for option, value, known in (("images", images, IMAGES), ("labels", labels, LABELS), ("clutter", clutter, CLUTTER)):
        if value not in known:
            raise UserError(f"{spec}: {option}={value}: must be one of {', '.join(known)}")
    if split not in SPLITS:
        raise no_split(spec, split, SPLITS)
    folder, ending, bands = IMAGES[images]
    of_images, of_labels = (_folder(spec, path, *of) for of in ((folder, ending), LABELS[labels]))
    left_out = {_tile(name, spec) for name in without.split(",") if name}
    tiles = [tile for tile in SPLITS[split] if tile not in left_out]
    for what, there in ((folder, of_images[1]), (LABELS[labels][0], of_labels[1])):
        if absent := [f"{row}_{column}" for row, column in tiles if (row, column) not in there]:
            raise UserError(
                f"{spec}: {what} lacks {len(absent)} of the {len(tiles)} tiles of {split}, first {absent[0]}; "
                f"copy them there, or leave tiles out: ?without={absent[0]}"
            )
    names = [(of_images[1][tile], of_labels[1][tile]) for tile in tiles]
    count = len(CLASSES) - (clutter == "ignored")
    whole = Pairs(spec, of_images[0], of_labels[0], names, Masks(CLASSES[:count], IGNORE), _Colours(count), bands)
    return Clips(whole, int(clip)) if clip else whole


def _folder(spec: str, path: str, folder: str, ending: str) -> tuple[FolderFiles, dict[tuple[int, int], str]]:
    """The files of a folder, by tile."""
    root = epath.Path(path) / folder
    if not root.is_dir():
        raise UserError(f"{spec}: no folder {folder} there; unpack {folder}.zip into it")
    files = FolderFiles(str(root), lambda name: name.lower().endswith((".tif", ".tiff")))
    pattern = re.compile(rf"top_potsdam_(\d+)_(\d+)_{ending}\.tiff?")
    found = ((pattern.fullmatch(name.rpartition("/")[2]), name) for name in files.names)
    return files, {(int(match[1]), int(match[2])): name for match, name in found if match}


def _tile(name: str, spec: str) -> tuple[int, int]:
    if not (match := re.fullmatch(r"(\d+)_(\d+)", name)):
        raise UserError(f"{spec}: without={name}: must be the name of a tile, such as 2_10")
    return int(match[1]), int(match[2])


class _Colours:
    """Decodes labels as mmsegmentation's converter does: pixels with an unknown colour are ignored."""

    def __init__(self, classes: int):
        table = {colour_of(colour): label if label < classes else IGNORE for label, colour in enumerate(COLOURS)}
        self._table = ColourTable({**table, (0, 0, 0): IGNORE}, others=IGNORE, share=_FOREIGN)

    def __call__(self, data: bytes, name: str) -> np.ndarray:
        return decode_mask(data, name, self._table).astype(np.uint8)
