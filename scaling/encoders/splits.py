"""Labelled images of a whole split, as an encoder takes them, and their features."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from scaling.core.errors import UserError
from scaling.data.arrays import far_from_normalised, normalise, other_units
from scaling.data.config import DataConfig
from scaling.data.labels import check_classes, check_labels, no_label, unlabelled
from scaling.data.pipeline import Skipped, eval_batches
from scaling.data.sources.base import Statistics
from scaling.data.sources.registry import open_source, stored_spec
from scaling.data.spot_checks import beyond_eight_bits, few_images, few_pixels, had_eight_bits, warn_of_masks
from scaling.encoders.bands import Bands, bands_of, training_dtype
from scaling.encoders.encoder import Encoder

log = logging.getLogger(__name__)


class Part(NamedTuple):
    """Some images of a split: normalised [b, h, w, C], their labels, [b] or [b, L], and the records they are [b]."""

    images: np.ndarray
    labels: np.ndarray
    records: np.ndarray


class Split:
    """A split, opened and checked for an encoder; pixel values are checked with the first part.

    Args:
      encoder: decides image size, bands and, by default, normalisation.
      source, split: source and split to read, see `scaling.data.sources.registry`.
      limit: largest number of images, 0 for all; they are drawn evenly from the split.
      bands: bands to take, by index or by name, in the order of the encoder; () to follow the checkpoint, see
        `scaling.encoders.bands`.
      statistics: mean and standard deviation of the bands taken, for a source in other units than the training's.
      option: name of the option for bands, for messages.
      own: name of the option for the source's own normalisation, for messages; empty if there is none.

    Attributes:
      opened: the source.
      bands: indices of the bands taken; () for all.

    Raises:
      UserError: a source that does not exist or does not fit the encoder; with the first part, images that are
        fractions although the training's are not, or beyond the 8 bits that the training's had. For other units a
        warning is logged once.
    """

    def __init__(
        self,
        encoder: Encoder,
        source: str,
        split: str,
        limit: int = 0,
        *,
        bands: Bands = (),
        statistics: Statistics | None = None,
        option: str = "bands",
        own: str = "",
    ):
        self._own, self._said, self._checked = own, False, False
        self._encoder, self._statistics, self._limit = encoder, statistics, limit
        source = stored_spec(source)
        self.source, self.split = source, split
        self.opened = open_source(source, split)
        images = few_images(self.opened)
        warn_of_masks(f"{source}, split {split}", images)
        self.bands = bands_of(
            encoder, self.opened, source, bands, statistics=statistics is not None, option=option, images=images
        )
        if not statistics and not encoder.train.data.mean:
            instead = own or "images that are normalised already, as .npy"
            raise UserError(f"{source}: the checkpoint does not say how its images are normalised; give {instead}")
        if statistics and len(statistics[0]) != encoder.config.bands:
            raise UserError(f"mean and std of {len(statistics[0])} bands, but the encoder takes {encoder.config.bands}")

    @property
    def images(self) -> int:
        """Largest number of images read."""
        return min(self._limit or len(self.opened), len(self.opened))

    def parts(self, batch_size: int = 128) -> Iterator[Part]:
        """Yields the readable images in a fixed order, without augmentation; the others are named in the log."""
        # the whole split takes the place of a run's held-out part
        config = DataConfig(
            source=self.source,
            split=self.split,
            eval_source=self.source,
            eval_split=self.split,
            eval_examples=self._limit,
            bands=self.bands,
        )
        size, skipped = self._encoder.config.image_shape, Skipped(self.opened, config)
        for batch in eval_batches(self.opened, config, image_size=size, batch_size=batch_size):
            real = batch["weight"] > 0
            skipped.warn(batch)
            yield Part(self._normalised(batch["image"][real]), batch["label"][real], batch["id"][real])

    def labelled(self, batch_size: int = 128) -> Iterator[Part]:
        """Like `parts`, but checks that the images can be learned from and scored.

        Raises:
          UserError: an image without a label, all images with the same one, or no readable image.
        """
        check_labels(self.opened, self.source, self.split)
        seen: set[int] = set()
        several = images = 0
        for part in self.parts(batch_size):
            if (missing := unlabelled(part.labels)).any():
                raise no_label(self.source, self.split, self.opened.name(int(part.records[missing][0])))
            images, several = images + len(part.labels), part.labels.ndim == 2
            seen.update([] if several else part.labels.tolist())
            yield part
        if not images:
            raise UserError(f"{self.source}, split {self.split}, has no readable image")
        if not several:
            check_classes(seen, f"{self.source}, split {self.split}", images)

    def _normalised(self, images: np.ndarray) -> np.ndarray:
        if not self._checked and not self._statistics:
            self._check_range()
        found = normalise(images, *self._statistics) if self._statistics else self._encoder.normalise(images)
        far = far_from_normalised(found)
        if not self._checked and not self._statistics and not far:
            data = self._encoder.train.data
            units, is_certain = other_units(images, data.mean, data.std)
            if is_certain:  # fractions
                raise UserError(
                    f"{self.source}, split {self.split}: {units}; give images in the units of the training data"
                )
            if units:
                where = f"{self.source}, split {self.split}"
                log.warning(f"{where}: {units}; if they are, give images in the units of the training data")
        self._checked = True
        if not self._said and far:
            self._said = True
            log.warning(f"{self.source}, split {self.split}: normalised, the images are of {far}: {self._why(images)}")
        return found

    def _check_range(self) -> None:
        """Raises UserError for whole numbers beyond the range of the training's."""
        data, trained_on = self._encoder.train.data, training_dtype(self._encoder)
        if not had_eight_bits(data.mean, trained_on):
            return
        pixels = few_pixels(self.opened, self.bands, len(data.mean))
        if units := beyond_eight_bits(pixels, data.mean, data.std, trained_on):
            other = f", or {self._own} to normalise by what is measured on them" if self._own else ""
            where = f"{self.source}, split {self.split}"
            raise UserError(f"{where}: {units}; give images in the units of the training data{other}")

    def _why(self, pixels: np.ndarray) -> str:
        """The reason why pixels are far from the expected range, and the remedy."""
        mean = f"{float(np.mean(pixels, dtype=np.float64)):.4g}"
        if self._statistics:
            return f"mean and std are not of these pixels, whose mean is {mean}"
        training = f"{float(np.mean(self._encoder.train.data.mean)):.4g}"
        other = f", or {self._own} to normalise by what is measured on them" if self._own else ""
        return (
            f"their pixels of mean {mean} are in other units than those of the training, of mean {training} (8 or 16 "
            f"bits, reflectances); give images in the units of the training{other}"
        )


def read_split(
    encoder: Encoder,
    source: str,
    split: str,
    limit: int = 0,
    batch_size: int = 128,
    *,
    bands: Bands = (),
    statistics: Statistics | None = None,
    option: str = "bands",
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of (normalised images [b, h, w, C], labels [b]); see `Split`."""
    opened = Split(encoder, source, split, limit, bands=bands, statistics=statistics, option=option)
    for part in opened.parts(batch_size):
        yield part.images, part.labels


def labelled_features(
    encoder: Encoder,
    source: str,
    split: str,
    functions: Mapping[str, Callable[[np.ndarray], np.ndarray]],
    limit: int = 0,
    *,
    bands: Bands = (),
    statistics: Statistics | None = None,
    option: str = "bands",
    own: str = "",
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features of a split by every function, [N, D] each, and the labels, [N] or [N, L]; every image is read once.

    Args:
      encoder, source, split, limit, bands, statistics, option, own: see `Split`.
      functions: normalised images [b, h, w, C] -> features [b, D], by name.

    Raises:
      UserError: see `Split` and its `labelled`.
    """
    opened = Split(encoder, source, split, limit, bands=bands, statistics=statistics, option=option, own=own)
    parts = ((part.labels, *(f(part.images) for f in functions.values())) for part in opened.labelled())
    labels, *features = gathered(parts, opened.images)
    return dict(zip(functions, features, strict=True)), labels


def gathered(parts: Iterable[Sequence[np.ndarray]], rows: int) -> list[np.ndarray]:
    """Concatenates arrays that come in parts, with at most this many rows, without holding any twice."""
    whole: list[np.ndarray] = []
    end = 0
    for part in parts:
        whole = whole or [np.empty((rows, *x.shape[1:]), x.dtype) for x in part]
        start, end = end, end + len(part[0])
        for array, x in zip(whole, part, strict=True):
            array[start:end] = x
    return [array[:end] for array in whole]
