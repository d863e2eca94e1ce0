"""Labelled images of a whole split, as an encoder takes them."""

import dataclasses
import logging
from collections.abc import Iterator

import numpy as np

from scaling.data.config import check_source, open_sources
from scaling.data.pipeline import eval_batches
from scaling.errors import UserError
from scaling.evaluation.encoder import Encoder

log = logging.getLogger(__name__)


def read_split(
    encoder: Encoder, source: str, split: str, limit: int = 0, batch_size: int = 128
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of (normalised images [b, h, w, C], labels [b]) in a fixed order, without augmentation.

    Args:
      encoder: decides image size, bands and normalisation.
      source, split: what to read, see `scaling.data.sources`.
      limit: at most this many images, 0 for all; they are drawn evenly from the split.
      batch_size: images at once.

    Raises:
      UserError: a source that is not there or does not fit the encoder.
    """
    # like the data of the run, with all of the named split in the place of its held-out part
    config = dataclasses.replace(
        encoder.train.data, source=source, split=split, eval_source=source, eval_split=split, eval_examples=limit
    )
    _, opened = open_sources(config)
    check_source(opened, encoder.config.bands, config)
    batches = eval_batches(opened, config, image_size=encoder.config.image_size, batch_size=batch_size)
    for batch in batches:
        real = batch["weight"] > 0
        for record in batch["skipped"][batch["skipped"] >= 0]:
            log.warning("skipped an unreadable image: %s", opened.name(int(record)))
        yield encoder.normalise(batch["image"][real]), batch["label"][real]


def labelled_features(
    encoder: Encoder, source: str, split: str, pool: str = "mean", limit: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [N, D] of a split, the normalised pixels [N, h * w * C] they came from, and the labels [N]."""
    features, pixels, labels = [], [], []
    for images, label in read_split(encoder, source, split, limit):
        features.append(encoder.features(images, pool))
        pixels.append(images.reshape(len(images), -1))
        labels.append(label)
    if not features or min(label.min(initial=0) for label in labels) < 0:
        raise UserError(f"{source}, split {split}, has no labels to probe with")
    return np.concatenate(features), np.concatenate(pixels), np.concatenate(labels)
