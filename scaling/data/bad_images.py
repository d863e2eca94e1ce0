"""Unreadable images: each is named once and counted, and too many of them end the run."""

import logging

import numpy as np

from scaling.core.errors import TrainingError
from scaling.data.config import DataConfig
from scaling.data.images import CorruptImage
from scaling.data.pipeline import Skipped
from scaling.data.sources.base import Source

_LEAST_SEEN = 100  # examples before the share is meaningful
_SHOWN = 3


class BadImages:
    """Counts the corrupt records that `train_batches` replaced. One per process.

    Args:
      max_share: largest allowed share of corrupt examples; `update` raises above it.
      data: how the images are read, which gives the reason why a sound one does not fit the others.
    """

    def __init__(self, max_share: float, data: DataConfig | None = None):
        self.max_share, self._data = max_share, data
        self.seen = 0
        self.bad = 0
        self._names: dict[int, str] = {}
        self._skipped: Skipped | None = None

    def update(self, batch: dict[str, np.ndarray], source: Source) -> None:
        """Counts one batch and logs each new bad record, with the reason, as a warning.

        Raises:
          TrainingError: more than `max_share` of the examples were corrupt. Before 100 examples the share is that of
            100, and a single corrupt image, however often it occurred, raises nothing.
        """
        skipped = batch["skipped"][batch["skipped"] >= 0]
        self.seen += len(batch["skipped"])
        self.bad += len(skipped)
        for record in skipped.tolist():
            if record not in self._names:
                self._names[record] = source.name(record)
                logging.warning("skipped an unreadable image: %s", self._reason(source, record))
        several = self.seen >= _LEAST_SEEN or len(self._names) > 1
        if several and self.bad > self.max_share * max(self.seen, _LEAST_SEEN):
            names = list(self._names.values())
            more = ", …" if len(names) > _SHOWN else ""
            raise TrainingError(
                f"{self.bad} of {self.seen} images are unreadable, more than data.max_bad_share={self.max_share}: "
                f"{', '.join(names[:_SHOWN])}{more}; repair them, or write a clean copy with scaling.prepare"
            )

    def _reason(self, source: Source, record: int) -> str:
        try:
            source[record]
        except CorruptImage as error:
            return str(error)
        if self._data:
            self._skipped = self._skipped or Skipped(source, self._data)
            return self._skipped.reason(record)
        return f"{source.name(record)}: does not fit the other images"
