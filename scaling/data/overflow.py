"""Images with more objects than a batch has room for: reported once, with the room that the image would need."""

import logging

import numpy as np

from scaling.data.sources.base import Source


class Overflow:
    """Keeps account of the training images that have more objects than `Boxes.most`. One per process.

    Attributes:
      images, objects: number of such images so far, and of their objects that were dropped.
    """

    def __init__(self) -> None:
        self.images = self.objects = 0

    def update(self, batch: dict[str, np.ndarray], source: Source) -> None:
        """Counts one batch of objects; the first image with too many is named in a warning."""
        over = batch.get("box_overflow")
        if over is None or not over.any():
            return
        if not self.images:
            worst = int(np.argmax(over))
            most = batch["box_valid"].shape[1]
            logging.warning(
                "%s has %d objects, but a batch has room for only %d per image; the others are not trained on: set "
                "task.most=%d, or cut the images into smaller tiles (objects_without_room counts them)",
                *(source.name(int(batch["id"][worst])), most + over[worst], most, most + over[worst]),
            )
        self.images += int((over > 0).sum())
        self.objects += int(over.sum())
