"""Batches from the host to the devices, a few ahead of the step that uses them."""

import collections
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from scaling.data.labels import require_labels
from scaling.data.pipeline import eval_batches, train_batches
from scaling.data.sources.base import Source
from scaling.data.targets import views_in, wanted
from scaling.parallel.batches import LocalRows
from scaling.training.config import RunConfig

HostBatch = dict[str, np.ndarray]
DeviceBatch = dict[str, jax.Array]


class HostBatches(Protocol):
    """The output of the pipeline: an iterator backed by threads, which `close` ends."""

    def __next__(self) -> HostBatch: ...

    def close(self) -> None: ...


class Feed:
    """Iterates over (host batch, device batch), keeping `ahead` transfers in flight.

    Attributes:
      waited: seconds spent waiting for the host pipeline so far.
    """

    def __init__(self, batches: HostBatches, rows: LocalRows, keys: tuple[str, ...], ahead: int = 2):
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

    def close(self) -> None:
        """Stops the threads and workers of the pipeline."""
        self._batches.close()


def training_feed(
    source: Source, c: RunConfig, mesh: Mesh, arrays: Mapping[str, Any], *, seed: int, start: int = 0
) -> Feed:
    """The endless training batches after step `start`, with these arrays on the devices; see `TrainStep.arrays`.

    Raises:
      UserError: the source lacks one.
    """
    rows, sizes = LocalRows(mesh, c.batch_size), _sizes(source, c, arrays)
    return Feed(train_batches(source, c.data, seed=seed, start=start, rows=rows.blocks, **sizes), rows, tuple(arrays))


def evaluation_feed(
    source: Source, c: RunConfig, mesh: Mesh, arrays: Mapping[str, Any]
) -> Iterator[tuple[HostBatch, DeviceBatch]]:
    """Every image that `c.data` evaluates on, once, in a fixed order; padding and corrupt images have weight 0.

    Raises:
      UserError: the source lacks an array, or `label` is one of them and an image has no label.
    """
    rows, sizes = LocalRows(mesh, c.batch_size), _sizes(source, c, arrays)
    for host, batch in Feed(eval_batches(source, c.data, rows=rows.blocks, **sizes), rows, tuple(arrays)):
        if "label" in arrays:
            require_labels(host, source, c.data.source)
        yield host, batch


def _sizes(source: Source, c: RunConfig, arrays: Mapping[str, Any]) -> dict[str, Any]:
    targets = wanted(source.info.all_targets, arrays, c.data.source)
    sizes = {"image_size": c.model.image_shape, "batch_size": c.batch_size}
    return sizes | {"views": views_in(arrays), "targets": targets}
