"""Objects that no anchor can be assigned to, found before any compute is spent: they would silently not be learned."""

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from scaling.boxes.convert import from_quadrilaterals
from scaling.data.images import CorruptImage
from scaling.data.sources.base import Source
from scaling.training.config import FinetuneConfig

_IMAGES = 16  # images looked at
_SHARE = 0.05  # share of their objects from which a warning is logged
_FACTORS = (0.5, 2.0, 0.25, 4.0, 0.125, 8.0)  # tried for a better size

log = logging.getLogger(__name__)


def warn_of_unreached(source: Source, c: FinetuneConfig) -> None:
    """Logs a warning if no anchor can be assigned to a part of the objects in a few training images, and the
    anchor_size that leaves the fewest.
    """
    detector: Any = c.task.with_encoder(c.model)  # type: ignore[attr-defined]
    boxes = np.concatenate([np.zeros((0, 5), np.float32), *_boxes(source, c)])

    def unreached(size: float) -> int:
        return int((~detector.detector.reached(dataclasses.replace(detector, anchor_size=size), boxes)).sum())

    size = detector.anchor_size
    if (missed := unreached(size)) > _SHARE * len(boxes):
        best = min((size, *(size * factor for factor in _FACTORS)), key=unreached)
        remedy = f"; with task.anchor_size={best:g} it is {unreached(best)}" if best != size else ""
        log.warning(
            "task.anchor_size=%g: %d of %d objects in a few images of %s have a size or shape far from that of every "
            "anchor, and so are not learned from by the first stage%s",
            *(size, missed, len(boxes), c.data.source, remedy),
        )


def _boxes(source: Source, c: FinetuneConfig) -> Iterator[np.ndarray]:
    """The boxes of a few images, [n, 5], at the size at which all of an image is shown, or cut out at ratio 1."""
    total, (rows, columns) = len(source), c.model.image_shape
    for index in dict.fromkeys(i * total // _IMAGES for i in range(_IMAGES)):
        try:
            example = source[index]
        except CorruptImage:
            continue
        height, width = example["image"].shape[:2]
        scale = np.array([columns / width, rows / height])
        if c.data.crop == "ratio":
            scale = np.full(2, c.data.resize_base / min(height, width) if c.data.resize_base else 1.0)
        boxes = np.asarray(from_quadrilaterals((example["boxes"].corners * scale).astype(np.float32)))
        yield boxes[boxes[:, 3] >= max(c.task.least_side, 1e-3)]  # type: ignore[attr-defined]
