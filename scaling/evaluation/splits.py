"""Labelled images of a whole split, as an encoder takes them, and their features."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from scaling.data.config import check_source, open_sources
from scaling.data.pipeline import eval_batches, normalise
from scaling.data.statistics import Statistics
from scaling.errors import UserError
from scaling.evaluation.encoder import Encoder

log = logging.getLogger(__name__)


def read_split(
    encoder: Encoder,
    source: str,
    split: str,
    limit: int = 0,
    batch_size: int = 128,
    *,
    bands: tuple[int, ...] = (),
    statistics: Statistics | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of (normalised images [b, h, w, C], labels [b]) in a fixed order, without augmentation.

    Args:
      encoder: decides image size, number of bands and, by default, normalisation.
      source, split: what to read, see `scaling.data.sources`.
      limit: at most this many images, 0 for all; they are drawn evenly from the split.
      batch_size: images at once.
      bands: indices of the bands to take, () for all; of the source of the training () is what the training took.
      statistics: mean and standard deviation of the bands taken, for a source in other units than the training's.

    Raises:
      UserError: a source that is not there or does not fit the encoder.
    """
    # like the data of the run, with all of the named split in the place of its held-out part
    trained = encoder.train.data
    config = dataclasses.replace(
        trained,
        source=source,
        split=split,
        eval_source=source,
        eval_split=split,
        eval_examples=limit,
        bands=bands or (trained.bands if source == trained.source else ()),
    )
    _, opened = open_sources(config)
    check_source(opened, encoder.config.bands, config)
    batches = eval_batches(opened, config, image_size=encoder.config.image_size, batch_size=batch_size)
    for batch in batches:
        real = batch["weight"] > 0
        for record in batch["skipped"][batch["skipped"] >= 0]:
            log.warning("skipped an unreadable image: %s", opened.name(int(record)))
        images = batch["image"][real]
        yield normalise(images, *statistics) if statistics else encoder.normalise(images), batch["label"][real]


def labelled_features(
    encoder: Encoder,
    source: str,
    split: str,
    functions: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    limit: int = 0,
    *,
    bands: tuple[int, ...] = (),
    statistics: Statistics | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features of a split by every function, [N, D] each, and the labels, [N] or [N, L]; every image is read once.

    Args:
      encoder, source, split, limit, bands, statistics: see `read_split`.
      functions: normalised images [b, h, w, C] -> features [b, D], by name.

    Raises:
      UserError: as `read_split`, or there is an image without a label, or no image.
    """
    features: dict[str, list[np.ndarray]] = {name: [] for name in functions}
    labels = []
    for images, label in read_split(encoder, source, split, limit, bands=bands, statistics=statistics):
        if label.min(initial=0) < 0:
            raise UserError(f"{source}, split {split}, has no labels to probe with")
        labels.append(label)
        for name, function in functions.items():
            features[name].append(function(images))
    if not sum(map(len, labels)):
        raise UserError(f"{source}, split {split}, has no readable image")
    return {name: np.concatenate(parts) for name, parts in features.items()}, np.concatenate(labels)
