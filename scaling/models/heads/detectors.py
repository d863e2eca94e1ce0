"""Detection heads, by name."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from scaling.models.heads import oriented_rpn, rotated_retinanet
from scaling.models.heads.detection import Found, Losses, Sizes, Truth
from scaling.models.heads.layers import Head, Layers
from scaling.models.heads.oriented_rcnn import oriented_rcnn_found, oriented_rcnn_layers, oriented_rcnn_losses
from scaling.models.heads.rotated_retinanet import (
    rotated_retinanet_found,
    rotated_retinanet_layers,
    rotated_retinanet_losses,
)


class Detector(NamedTuple):
    """A head.

    Attributes:
      layers: its parameters after the pyramid.
      losses: (parameters, sizes, maps, truth, keys [B, 2, ...]) -> terms of the loss.
      found: (parameters, sizes, maps) -> detections.
      levels: levels of the pyramid that it reads.
      reached: (sizes, boxes [n, 5]) -> whether an anchor can be assigned to each.
    """

    layers: Callable[[Sizes], Layers]
    losses: Callable[[Head, Sizes, Sequence[jax.Array], Truth, jax.Array], Losses]
    found: Callable[[Head, Sizes, Sequence[jax.Array]], Found]
    levels: tuple[int, ...]
    reached: Callable[[Sizes, np.ndarray], np.ndarray]


DETECTORS = {
    "oriented_rcnn": Detector(
        oriented_rcnn_layers, oriented_rcnn_losses, oriented_rcnn_found, oriented_rpn.LEVELS, oriented_rpn.reached
    ),
    "rotated_retinanet": Detector(
        rotated_retinanet_layers,
        rotated_retinanet_losses,
        rotated_retinanet_found,
        rotated_retinanet.LEVELS,
        rotated_retinanet.reached,
    ),
}
