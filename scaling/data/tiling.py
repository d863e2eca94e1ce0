"""Cuts large images with objects into tiles, and merges detections of tiles into those of the whole image.

As mmrotate cuts DOTA (tools/data/dota/split/img_split.py, BboxToolkit): squares of 1024 pixels that overlap by 200, the
last one shifted to end with the image; a smaller image gives one tile, padded to the right and below. A tile is kept if
the image covers enough of it. An object is kept, whole, by every tile that covers enough of its area, and is difficult
there if the tile covers less than all of it. Merging moves detections back and suppresses each class of an image by the
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

FILL = (124, 116, 104)  # padding of images with three bands, red first; mmrotate's is blue first
MERGED = 0.1  # overlap with a better detection above which both are taken for one object

_WHOLE = 1e-6  # share of an object's area that may be outside a tile that holds it whole
_NAME = re.compile(r"(?P<image>.+?)__(?P<scale>[\d.]+)__(?P<x>\d+)___(?P<y>\d+)")


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles.

    Attributes:
      size: pixels along each side of a tile.
      gap: pixels that neighbouring tiles share.
      rates: scales by which images are resized before cutting; each gives tiles of its own.
      content: smallest share of a tile that the image must cover; if no tile reaches it, those with the largest stay.
      inside: smallest share of an object's area that must be in a tile that keeps it.

    Raises:
      UserError: tiles without pixels, a gap as large as a tile, rates or shares that are not positive.
    """

    size: int = 1024
    gap: int = 200
    rates: tuple[float, ...] = (1.0,)
    content: float = 0.6
    inside: float = 0.7

    def __post_init__(self):
        if self.size < 1 or not 0 <= self.gap < self.size:
            raise UserError(
                f"tile={self.size}, gap={self.gap}: the gap, which tiles share, must be smaller than a tile"
            )
        if not self.rates or min(self.rates) <= 0:
            raise UserError(
                f"rates={','.join(map(str, self.rates))}: must be numbers above 0, by which images are resized"
            )
        if not 0 <= self.content <= 1 or not 0 < self.inside <= 1:
            raise UserError(f"content={self.content}, inside={self.inside}: must be fractions between 0 and 1")

    def tiles(self, height: int, width: int) -> list["Tile"]:
        """The tiles of an image of this size, rate by rate, from left to right and downwards."""
        return [tile for rate in self.rates for tile in self._tiles(height, width, rate)]

    def _tiles(self, height: int, width: int, rate: float) -> list["Tile"]:
        size, gap = round(self.size / rate), round(self.gap / rate)
        across, down = (window_starts(length, size, size - gap) for length in (width, height))
        tiles = [Tile(x, y, size, rate) for x, y in itertools.product(across, down)]
        covered = np.array([min(size, width - t.x) * min(size, height - t.y) / size**2 for t in tiles])
        enough = min(self.content, covered.max())
        return [tile for tile, share in zip(tiles, covered, strict=True) if share >= enough]

    def objects(self, objects: Quadrilaterals, tile: "Tile") -> tuple[Quadrilaterals, np.ndarray]:
        """The objects that a tile keeps, in its pixels; and for all objects the share of their area in it, float64
        [n].
        """
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
    """A square of an image: its first column and row and its side in pixels there, and the rate that it belongs to."""

    x: int
    y: int
    size: int
    rate: float = 1.0

    def cut(self, image: np.ndarray, pixels: int = 0) -> np.ndarray:
        """Its pixels [size, size, bands] from an image [height, width, bands], padded beyond the image's edges;
        resized to `size` pixels along each side if given.
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
        """The devkit's name of the tile, with its position in pixels of the resized image: `P0001__1__824___0`."""
        x, y = (round(at * self.rate) for at in (self.x, self.y))
        return f"{image}__{self.rate:g}__{x}___{y}"


def moved_back(corners: np.ndarray, tile: Tile, size: int) -> np.ndarray:
    """Corners [n, 4, 2] in pixels of the whole image, from pixels of a tile of `size` pixels along each side."""
    return np.asarray(corners, np.float64) * (tile.size / size) + np.array([tile.x, tile.y], np.float64)


def merged(found: Sequence[Found], threshold: float = MERGED) -> Found:
    """One detection per object: suppresses detections of one class in pixels of whole images. The best come first.

    Args:
      found: detections of any number of tiles or models.
      threshold: overlap with a better detection of the image above which a detection is dropped.
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
      found: detections by names of tiles.
      where: file of the detections, for messages.
      tiles: image, tile and side in pixels, by the tile's name. None: parsed from names in the form of the devkit
        (`P0001__1__824___0`: coordinates are divided by the rate after adding the position), or of mmrotate, which has
        the size instead of the rate (`P0001__1024__824___0`).

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
                raise UserError(f"{where}: {name} is not the name of a tile, such as P0001__1__824___0")
            image, scale = match["image"], float(match["scale"])
            place = np.array([int(match["x"]), int(match["y"])])
            # No image is enlarged 16 times, and no tile has so few pixels.
            corners[i] = (corners[i] + place) / (scale if scale < 16 else 1)
        images.append(image)
    return Found(images, found.scores, corners)


def kept_and_dropped(tiling: Tiling, images: Iterable[tuple[int, int, Quadrilaterals]]) -> dict[str, int]:
    """Counts over images (height, width, objects): all `objects`, those `cut` (kept, but whole in no tile), those
    `dropped` (kept by no tile), all `tiles`, and `empty` tiles.
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
