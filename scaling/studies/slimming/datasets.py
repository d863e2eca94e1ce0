"""Labelled data sets that encoders are probed on, named in a config, read once."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from scaling.data.sources.default_splits import default_splits
from scaling.data.sources.registry import store_specs
from scaling.encoders.encoder import Encoder
from scaling.encoders.splits import Split, gathered


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """One data set; how its bands map to the encoder's inputs is stated here, never inferred.

    Attributes:
      source: see `scaling.data.sources.registry`.
      train_split, test_split: splits to train a probe on, and to score it on.
      validation_split: split on which a probe makes choices; empty to hold out a part of the training images.
      limit: largest number of images of each split, drawn evenly, the same for every probe; 0 for all.
      bands: indices of the bands to take, in the order of the encoder; () for all.
      mean, std: mean and standard deviation of each band taken, in the units of the data; () for those the encoder was
        trained with.
    """

    source: str = ""
    train_split: str = "train"
    test_split: str = "test"
    validation_split: str = ""
    limit: int = 0
    bands: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        store_specs(self, "source")


def with_splits(datasets: Mapping[str, DatasetConfig]) -> dict[str, DatasetConfig]:
    """Data sets, with default splits if all images are in `train`; see `scaling.data.sources.default_splits`."""
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
    """`train`, `test` and, if the config names one, `validation`, prepared for the encoder, in memory.

    Raises:
      UserError: a source that does not exist or does not fit the encoder, or a split with unlabelled images.
    """
    splits = {"train": c.train_split, "test": c.test_split, "validation": c.validation_split}
    return {name: _read(encoder, c, split) for name, split in splits.items() if split}


def _read(encoder: Encoder, c: DatasetConfig, split: str) -> Images:
    statistics = (c.mean, c.std) if c.mean else None
    opened = Split(encoder, c.source, split, c.limit, bands=c.bands, statistics=statistics, own="mean and std")
    images, labels, _ = gathered(opened.labelled(), opened.images)
    return Images(images, labels)
