"""Objects in images of any size: a detector processes tiles, cut as in DOTA, and its detections are merged as in DOTA.

See `scaling.data.tiling`. The devices hold one batch of tiles at a time, and the host the detections of one image.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from scaling.boxes.convert import corners
from scaling.boxes.polygons import polygon_nms
from scaling.data.tiling import MERGED, Tile, Tiling, moved_back
from scaling.evaluation.box_pictures import FoundBoxes
from scaling.evaluation.windows import Image, Read, in_flight, not_finite

Tell = Callable[[np.ndarray], Mapping[str, Any]]  # pixels [n, h, w, B] -> `Task.detections` of them


def found_in_images(
    images: Iterable[Image], tiling: Tiling, batch: int, tell: Tell, least: float = 0.0
) -> Iterator[tuple[int, FoundBoxes]]:
    """The detections of one image after the other, those of all its tiles, in pixels of the image; not merged.

    Args:
      images: reader, height and width of each; the next one is requested when the last is read.
      tiling: how they are cut.
      batch: tiles per batch; the last batch is padded.
      tell: finds objects; the next batch is started before the result of the last is used.
      least: smallest score of a detection.

    Yields:
      index of the image from 0, and its detections.
    """
    parts: list[FoundBoxes] = []
    for places, given in in_flight(_batches(images, tiling, batch), tell):
        told = {name: np.asarray(values) for name, values in given.items()}
        for row, (number, tile, last) in enumerate(places):
            parts.append(_of_tile({name: values[row] for name, values in told.items()}, tile, tiling.size, least))
            if last:
                yield number, FoundBoxes(*map(np.concatenate, zip(*parts, strict=True)))
                parts = []


def merged_boxes(found: FoundBoxes, threshold: float = MERGED) -> FoundBoxes:
    """One detection per object of an image: suppresses, within each class, boxes that overlap a better one by more
    than the threshold. The best come first.
    """
    kept = [np.zeros(0, np.int64)]
    for kind in np.unique(found.classes):
        mine = np.flatnonzero(found.classes == kind)
        kept.append(mine[polygon_nms(found.corners[mine], found.scores[mine], threshold)])
    those = np.concatenate(kept)
    return found.taken(those[np.argsort(-found.scores[those], kind="stable")])


def inside(found: FoundBoxes, size: tuple[int, ...]) -> np.ndarray:
    """Whether the middle of each detection is in an image of this height and width, bool [n]."""
    middle = found.corners.mean(1)
    return np.asarray(((middle >= 0) & (middle < size[::-1])).all(1))


_Place = tuple[int, Tile, bool]  # of a tile: index of its image, its position, whether it is the image's last


def _batches(images: Iterable[Image], tiling: Tiling, batch: int) -> Iterator[tuple[list[_Place], np.ndarray]]:
    """Tiles and their pixels [batch, size, size, bands]."""
    places: list[_Place] = []
    out = np.empty(0)
    for number, (read, height, width) in enumerate(images):
        tiles = tiling.tiles(height, width)
        for i, tile in enumerate(tiles, 1):
            pixels = _pixels(read, tile, height, width, tiling.size)
            if not places:
                out = np.zeros((batch, *pixels.shape), pixels.dtype)
            np.copyto(out[len(places)], pixels, casting="safe")
            places.append((number, tile, i == len(tiles)))
            if len(places) == batch:
                yield places, out
                places = []
    if places:
        yield places, out


def _pixels(read: Read, tile: Tile, height: int, width: int, size: int) -> np.ndarray:
    part = read(tile.y, tile.x, min(tile.y + tile.size, height), min(tile.x + tile.size, width))
    return Tile(0, 0, tile.size, tile.rate).cut(part, size)


def check_scores(scores: np.ndarray) -> None:
    """Raises TrainingError for an image of which the network returns NaN or infinity, which would be one without
    objects.
    """
    if np.isnan(scores).any():
        raise not_finite("an image")


def _of_tile(told: Mapping[str, np.ndarray], tile: Tile, size: int, least: float) -> FoundBoxes:
    """Detections in a tile, in pixels of its image."""
    check_scores(told["scores"])
    there = np.asarray(told["valid"], bool) & (told["scores"] >= least)
    outlines = moved_back(corners(told["boxes"][there].astype(np.float64)), tile, size)
    return FoundBoxes(outlines, told["scores"][there].astype(np.float64), told["labels"][there].astype(np.int64))
