"""Labelled data sets that encoders are probed on, named in a config, read once."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from scaling.data.sources.default_splits import default_splits
from scaling.encoders.encoder import Encoder
from scaling.encoders.splits import Split, gathered


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """One data set; what an encoder is to make of its bands is said here, never guessed.

    Attributes:
      source: see `scaling.data.sources.registry`.
      train_split, test_split: what a probe learns from, and what it is scored on.
      validation_split: where a probe chooses what it has to choose; empty to hold out a part of the training images.
      limit: at most this many images of each split, drawn evenly, the same for every probe; 0 for all.
      bands: indices of the bands to take, in the order of the encoder; () for all.
      mean, std: of each band taken, in the units of the data; () for those the encoder was trained with.
    """

    source: str = ""
    train_split: str = "train"
    test_split: str = "test"
    validation_split: str = ""
    limit: int = 0
    bands: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def with_splits(datasets: Mapping[str, DatasetConfig]) -> dict[str, DatasetConfig]:
    """Data sets, those whose images are all in `train` in parts; see `scaling.data.sources.default_splits`."""
    splits = {name: default_splits(c.source, c.train_split, c.test_split) for name, c in datasets.items()}
    return {
        name: dataclasses.replace(c, train_split=splits[name][0], test_split=splits[name][1])
        for name, c in datasets.items()
    }


@dataclasses.dataclass(frozen=True)
class Images:
    """Normalised images [N, h, w, C] and labels, [N] or [N, L]."""

    images: np.ndarray
    labels: np.ndarray


def load(encoder: Encoder, c: DatasetConfig) -> dict[str, Images]:
    """`train`, `test` and, where the config names one, `validation`, as the encoder takes them, in memory.

    Raises:
      UserError: a source that is not there or does not fit the encoder, or a split with images that have no label.
    """
    splits = {"train": c.train_split, "test": c.test_split, "validation": c.validation_split}
    return {name: _read(encoder, c, split) for name, split in splits.items() if split}


def _read(encoder: Encoder, c: DatasetConfig, split: str) -> Images:
    statistics = (c.mean, c.std) if c.mean else None
    opened = Split(encoder, c.source, split, c.limit, bands=c.bands, statistics=statistics, own="mean and std")
    images, labels, _ = gathered(opened.labelled(), opened.images)
    return Images(images, labels)
