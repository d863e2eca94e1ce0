"""Batches from the host to the devices, a few ahead of the step that uses them."""

import collections
import time
from collections.abc import Iterator

import jax
import numpy as np

from scaling.parallel.batches import LocalRows

HostBatch = dict[str, np.ndarray]
DeviceBatch = dict[str, jax.Array]


class Feed:
    """Iterates over (host batch, device batch), keeping `ahead` transfers in flight.

    Attributes:
      waited: seconds spent waiting for the host pipeline so far.
    """

    def __init__(self, batches: Iterator[HostBatch], rows: LocalRows, keys: tuple[str, ...], ahead: int = 2):
        self._batches, self._rows, self._keys, self._ahead = batches, rows, keys, ahead
        self._queue: collections.deque[tuple[HostBatch, DeviceBatch]] = collections.deque()
        self.waited = 0.0

    def __iter__(self) -> "Feed":
        return self

    def __next__(self) -> tuple[HostBatch, DeviceBatch]:
        while len(self._queue) < self._ahead and self._pull():
            pass
        if not self._queue:
            raise StopIteration
        return self._queue.popleft()

    def _pull(self) -> bool:
        began = time.perf_counter()
        batch = next(self._batches, None)
        self.waited += time.perf_counter() - began
        if batch is None:
            return False
        device = {k: self._rows.place(batch[k]) for k in self._keys}
        self._queue.append((batch, device))
        return True
