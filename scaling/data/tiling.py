"""Large images with objects as tiles, and detections of tiles as those of the whole image again.

As mmrotate cuts DOTA (tools/data/dota/split/img_split.py, BboxToolkit): squares of 1024 pixels that overlap by 200, the
last one shifted to end with the image; of a shorter image one, filled up to the right and below. A tile is kept if the
image covers enough of it. An object is kept, whole, by every tile that covers enough of its area, and difficult there
if that is not all of it; of no other tile. Merging moves detections back and suppresses each class of an image by the
overlap of polygons (DOTA_devkit, ResultMerge_multi_process.py).
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from scaling.boxes.convert import hulls
from scaling.boxes.polygons import polygon_area, polygon_nms, polygon_shared, upright_meet
from scaling.core.errors import UserError
from scaling.data.dota_text import Found
from scaling.data.geometry import whole, window_starts
from scaling.data.targets import Quadrilaterals

FILL = (124, 116, 104)  # around images of three bands, red first; mmrotate's are blue first
MERGED = 0.1  # what overlaps a better detection by more is the same object

_WHOLE = 1e-6  # of its area that an object may lie outside of a tile and be whole
_NAME = re.compile(r"(?P<image>.+?)__(?P<scale>[\d.]+)__(?P<x>\d+)___(?P<y>\d+)")


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Attributes:
      size: pixels along each side of a tile.
      gap: pixels that two tiles share.
      rates: by which images are resized before, each for tiles of its own.
      content: the least share of a tile that the image covers; where no tile has it, those with the most are kept.
      inside: the least share of an object's area in a tile that keeps it.

    Raises:
      UserError: tiles of no pixels, a gap as large as they are, rates or shares that are not positive.
    """

    size: int = 1024
    gap: int = 200
    rates: tuple[float, ...] = (1.0,)
    content: float = 0.6
    inside: float = 0.7

    def __post_init__(self):
        if self.size < 1 or not 0 <= self.gap < self.size:
            raise UserError(f"tile={self.size}, gap={self.gap}: tiles share fewer pixels than they have")
        if not self.rates or min(self.rates) <= 0:
            raise UserError(f"rates={','.join(map(str, self.rates))}: an image is resized by numbers above 0")
        if not 0 <= self.content <= 1 or not 0 < self.inside <= 1:
            raise UserError(f"content={self.content}, inside={self.inside}: shares lie between 0 and 1")

    def tiles(self, height: int, width: int) -> list["Tile"]:
        """The tiles of an image of this size, a rate after the other, from left to right and downwards."""
        return [tile for rate in self.rates for tile in self._tiles(height, width, rate)]

    def _tiles(self, height: int, width: int, rate: float) -> list["Tile"]:
        size, gap = round(self.size / rate), round(self.gap / rate)
        across, down = (window_starts(length, size, size - gap) for length in (width, height))
        tiles = [Tile(x, y, size, rate) for x, y in itertools.product(across, down)]
        covered = np.array([min(size, width - t.x) * min(size, height - t.y) / size**2 for t in tiles])
        enough = min(self.content, covered.max())
        return [tile for tile, share in zip(tiles, covered, strict=True) if share >= enough]

    def objects(self, objects: Quadrilaterals, tile: "Tile") -> tuple[Quadrilaterals, np.ndarray]:
        """Those that a tile keeps, in its pixels, and of all objects the share in it: float64 [n]."""
        window = np.array([tile.x, tile.y, tile.x + tile.size, tile.y + tile.size], np.float64)
        corners = objects.corners.astype(np.float64)
        share = np.zeros(len(corners))
        near = np.flatnonzero(upright_meet(hulls(corners), window))
        square = np.array([window[[0, 1]], window[[2, 1]], window[[2, 3]], window[[0, 3]]])
        shared = polygon_shared(corners[near], np.broadcast_to(square, (len(near), 4, 2)))
        areas = np.abs(polygon_area(corners[near]))
        share[near] = np.where(areas > 0, shared / np.where(areas > 0, areas, 1), 0)
        kept = share >= self.inside
        taken = objects.taken(kept)
        moved = ((corners[kept] - window[:2]) * (self.size / tile.size)).astype(np.float32)
        difficult = taken.difficult | (share[kept] < 1 - _WHOLE)
        return taken._replace(corners=moved, difficult=difficult), share


@dataclasses.dataclass(frozen=True)
class Tile:
    """A square of an image: its first column and row, its pixels along each side there, and the rate that it is of."""

    x: int
    y: int
    size: int
    rate: float = 1.0

    def cut(self, image: np.ndarray, pixels: int = 0) -> np.ndarray:
        """Its pixels [size, size, bands] of an image [height, width, bands], filled up where the image ends; resized to
        so many along each side where they are given.
        """
        part = image[self.y : self.y + self.size, self.x : self.x + self.size]
        if part.shape[:2] != (self.size, self.size):
            filled = np.zeros((self.size, self.size, image.shape[2]), image.dtype)
            if image.shape[2] == len(FILL) and image.dtype == np.uint8:
                filled[:] = FILL
            filled[: part.shape[0], : part.shape[1]] = part
            part = filled
        if pixels in (0, self.size):
            return part
        out = np.empty((pixels, pixels, part.shape[2]), part.dtype)
        whole(self.size, self.size, (pixels, pixels)).image(part, out)
        return out

    def name(self, image: str) -> str:
        """As the devkit calls it, with the place in pixels of the resized image: `P0001__1__824___0`."""
        x, y = (round(at * self.rate) for at in (self.x, self.y))
        return f"{image}__{self.rate:g}__{x}___{y}"


def moved_back(corners: np.ndarray, tile: Tile, size: int) -> np.ndarray:
    """Corners [n, 4, 2] in pixels of a tile of so many pixels along each side, in those of the whole image."""
    return np.asarray(corners, np.float64) * (tile.size / size) + np.array([tile.x, tile.y], np.float64)


def merged(found: Sequence[Found], threshold: float = MERGED) -> Found:
    """One detection for each object, of those of one class in pixels of whole images: the best first in each image.

    Args:
      found: of any number of tiles or models.
      threshold: what overlaps a better one of its image by more is left out.
    """
    names = [name for part in found for name in part.images]
    if not names:
        return Found([], np.zeros(0), np.zeros((0, 4, 2)))
    scores = np.concatenate([part.scores for part in found])
    corners = np.concatenate([np.asarray(part.corners, np.float64).reshape(-1, 4, 2) for part in found])
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    kept = [np.array(at)[polygon_nms(corners[at], scores[at], threshold)] for _, at in sorted(places.items())]
    order = np.concatenate(kept)
    return Found([names[i] for i in order], scores[order], corners[order])


def of_whole_images(found: Found, where: str, tiles: Mapping[str, tuple[str, Tile, int]] | None = None) -> Found:
    """Detections of tiles, moved to their images; not yet merged.

    Args:
      found: by names of tiles.
      where: the file they are from, for messages.
      tiles: by its name the image of a tile, its place, and its pixels along each side. None: the names say it, as
        the devkit writes them (`P0001__1__824___0`: divided by the rate after adding the place), or mmrotate, which
        puts the size in the place of the rate (`P0001__1024__824___0`).

    Raises:
      UserError: a name is not that of a tile.
    """
    corners = np.array(found.corners, np.float64)
    images = []
    for i, name in enumerate(found.images):
        if tiles is not None:
            if name not in tiles:
                raise UserError(f"{where}: {name} is not one of the {len(tiles):,} tiles")
            image, tile, size = tiles[name]
            corners[i] = moved_back(corners[i], tile, size)
        else:
            match = _NAME.fullmatch(name)
            if match is None:
                raise UserError(f"{where}: {name} is not the name of a tile, as P0001__1__824___0")
            image, scale = match["image"], float(match["scale"])
            place = np.array([int(match["x"]), int(match["y"])])
            # No image is enlarged 16 times; no tile is that small.
            corners[i] = (corners[i] + place) / (scale if scale < 16 else 1)
        images.append(image)
    return Found(images, found.scores, corners)


def kept_and_dropped(tiling: Tiling, images: Iterable[tuple[int, int, Quadrilaterals]]) -> dict[str, int]:
    """What becomes of the objects of images (height, width, objects): how many `objects` there are, `cut` ones that no
    tile has whole but one keeps, and `dropped` ones that none keeps; and how many `tiles`, and `empty` ones.
    """
    counts = dict.fromkeys(("tiles", "empty", "objects", "cut", "dropped"), 0)
    for height, width, objects in images:
        best = np.zeros(len(objects.classes))
        for tile in tiling.tiles(height, width):
            taken, share = tiling.objects(objects, tile)
            best = np.maximum(best, share)
            counts["tiles"] += 1
            counts["empty"] += not len(taken.classes)
        counts["objects"] += len(best)
        counts["dropped"] += int((best < tiling.inside).sum())
        counts["cut"] += int(((best >= tiling.inside) & (best < 1 - _WHOLE)).sum())
    return counts
