"""Large images with objects as the tiles of `scaling.data.tiling`, as a source."""

import logging
import threading
from typing import Any

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage
from scaling.data.sources.clips import Clips
from scaling.data.sources.objects import ObjectImages, image_size
from scaling.data.tiling import Tiling, kept_and_dropped


class Tiles(Clips):
    """All tiles of the images of a source, image by image. Logs the number of objects that no tile keeps.

    Args:
      images: the source of whole images.
      tiling: how images are cut.

    Attributes:
      counts: see `kept_and_dropped`.

    Raises:
      UserError: an image cannot be read.
    """

    def __init__(self, images: ObjectImages, tiling: Tiling):
        self.whole, self.size, self.info, self.tiling = images, tiling.size, images.info, tiling
        self._last: tuple[int, dict[str, Any]] | None = None
        self._lock = threading.Lock()
        sizes = [_size_of(images, i) for i in range(len(images))]
        tiles = [tiling.tiles(*size) for size in sizes]
        self._tiles = [(image, tile) for image, of in enumerate(tiles) for tile in of]
        objects = [images.boxes(i, (height, width)) for i, (height, width) in enumerate(sizes)]
        self.counts = kept_and_dropped(tiling, ((*size, boxes) for size, boxes in zip(sizes, objects, strict=True)))
        message = "%(tiles)d tiles, %(empty)d without objects; of %(objects)d objects %(cut)d lie whole in no tile, "
        logging.log(
            logging.WARNING if self.counts["dropped"] else logging.INFO,
            message + "%(dropped)d are in none",
            self.counts,
        )

    def __len__(self) -> int:
        return len(self._tiles)

    def kept(self, index: int) -> dict[str, Any]:
        """The pixels of a tile, its boxes and the label."""
        image, tile = self._tiles[index]
        there = self._image(image)
        boxes, _ = self.tiling.objects(there["boxes"], tile)
        return {**there, "image": tile.cut(there["image"], self.size), "boxes": boxes}

    def name(self, index: int) -> str:
        """Name of the tile in the devkit's form, which includes its position."""
        image, tile = self._tiles[index]
        return tile.name(self.whole.name(image).rpartition(".")[0])


def _size_of(images: ObjectImages, index: int) -> tuple[int, int]:
    name = images.name(index)
    try:
        return image_size(images.kept(index)["image"], name)
    except CorruptImage as error:
        raise UserError(f"{error}; repair the image, or remove it") from error
