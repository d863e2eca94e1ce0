"""The cut that an encoder gets before it is fine-tuned."""

import numpy as np

from scaling.encoders.encoder import Encoder
from scaling.encoders.slimmed import slim, uses_images
from scaling.encoders.splits import read_split
from scaling.training.config import FinetuneConfig


def cut_for(full: Encoder, c: FinetuneConfig) -> Encoder:
    """An encoder cut as in a recipe, calibrated on unlabelled images of the training split.

    Raises:
      UserError: the cut, or the images, do not fit the encoder.
    """
    images = None
    if uses_images(c.ordering, c.recovery) and c.calibration_images:
        limit, bands = c.calibration_images, c.data.bands
        batches = read_split(full, c.data.source, c.data.split, limit, bands=bands, option="data.bands")
        images = np.concatenate([images for images, _ in batches])
    return slim(full, c.width_ratio, c.mode, c.ordering, c.recovery, images, c.seed)
