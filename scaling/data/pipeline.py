"""Batches: sources -> one global order -> decode, crop, flip -> grain's threads and processes -> numpy arrays.

The guarantee: the global batch of a step depends on the seed, the source and the batch size alone. It is the same for
any number of hosts, threads and worker processes, and after a resume at any step.
"""

import dataclasses
import functools
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from scaling.data.config import DataConfig, held_out
from scaling.data.geometry import Size
from scaling.data.images import CorruptImage
from scaling.data.loading import Batch, Loader, loader_of
from scaling.data.order import Order
from scaling.data.sources.base import Source
from scaling.data.targets import Target

log = logging.getLogger(__name__)


_CHUNK = 16  # examples per task: large enough that grain's cost per task vanishes
_ENDLESS = 2**48  # steps
_MOST = 64  # threads of one process at most


def train_batches(
    source: Source,
    config: DataConfig,
    *,
    image_size: Size,
    seed: int,
    batch_size: int,
    start: int = 0,
    rows: Sequence[range] | None = None,
    views: int = 1,
    targets: Sequence[Target] = (),
) -> grain.DatasetIterator[Batch]:
    """The endless training batches of one process. Close the iterator to stop its threads and workers.

    Row j of global batch k is position k * batch_size + j of the global order, whoever makes it.

    Args:
      source: source of the images.
      config: data configuration.
      image_size: pixels along each side, or height and width.
      seed: seed of the order and of the augmentation, which is drawn from (seed, position, view).
      batch_size: examples per step over all processes.
      start: the step to begin with; the cost of the seek does not depend on it.
      rows: rows of every global batch that this process makes, see `scaling.parallel.batches`; all by default.
      views: crops per image; view v is `image_v`, and the first is always `image`.
      targets: targets to deliver beside the label; see `scaling.data.targets.wanted`.

    Yields:
      `image` [rows, height, width, bands], uint8 if the source has uint8, else float32, not normalised;
      `label` [rows] int32, or [rows, classes]; the arrays of the targets, of view v as `mask_v`; `index` [rows] int64,
      the position; `id` [rows] int64, the record; `skipped` [rows] int64, the corrupt record this example stands in
      for, else -1. See `scaling.data.bad_images.BadImages`.

    Raises:
      TrainingError: from the iterator, if no readable record is found.
    """
    order = Order(len(source), held_out(len(source), config), seed)
    loader = loader_of(source, config, image_size, order, views, targets)
    return _iterate(loader.training, config, batch_size, rows, start, _ENDLESS)


def eval_batches(
    source: Source,
    config: DataConfig,
    *,
    image_size: Size,
    batch_size: int,
    rows: Sequence[range] | None = None,
    views: int = 1,
    targets: Sequence[Target] = (),
) -> grain.DatasetIterator[Batch]:
    """The evaluation batches of one process: a fixed order, the central part of each image, no augmentation.

    Args:
      source: the second of `open_sources`.
      config, image_size, batch_size, rows, views, targets: see `train_batches`; views after the first are crops that
        depend on the position alone, with the changes of `data.photometric` if it is one of
        `scaling.data.view_changes`.

    Yields:
      The keys of `train_batches` and `weight` [rows] float32: 1, or 0 for padding (id -1) and for corrupt records,
      whose image is black. `index` is the position in the evaluation order.
    """
    count = held_out(len(source), config) or min(len(source), config.eval_examples or len(source))
    order = Order(len(source), count)
    loader = loader_of(source, config, image_size, order, views, targets)
    in_threads = dataclasses.replace(config, workers=0)  # new processes would cost more than a held-out set
    return _iterate(loader.evaluation, in_threads, batch_size, rows, 0, math.ceil(count / batch_size))


def whole_examples(source: Source, config: DataConfig, targets: Sequence[Target] = ()) -> Iterator[dict[str, Any]]:
    """The readable examples as they are stored, in the order of `eval_batches`, one after the other.

    Args:
      source, config, targets: see `eval_batches`; the whole source is read.

    Yields:
      `image` [height, width, bands] with the bands taken, the targets that move with the pixels, and `id`, the record.
      Unreadable images are named in the log.
    """
    order = Order(len(source), len(source))
    loader = loader_of(source, config, 0, order, 1, targets)
    for position in range(len(source)):
        record = order.evaluation(position)
        try:
            yield {**loader.read(record), "id": record}
        except CorruptImage as error:
            log.warning("skipped an unreadable image: %s", error)


class Skipped:
    """Why records of a source were skipped.

    Args:
      source, config: see `train_batches`; what the other images are like is looked up once.
    """

    def __init__(self, source: Source, config: DataConfig):
        self._source, self._config = source, config

    @functools.cached_property
    def _loader(self) -> Loader:
        return loader_of(self._source, self._config, 0, Order(len(self._source), 0), 1, ())

    def reason(self, record: int) -> str:
        """Name of a record, and the reason."""
        try:
            self._loader.read(record)
        except CorruptImage as error:
            return str(error)
        return f"{self._source.name(record)}: could be read only now"

    def warn(self, batch: Batch) -> None:
        """Logs the records that a batch of `eval_batches` skipped."""
        for record in batch["skipped"][batch["skipped"] >= 0].tolist():
            log.warning("skipped an unreadable image: %s", self.reason(record))


@dataclasses.dataclass(frozen=True)
class _Chunks:
    """Chunk c of a process, counted from step `start`: the unit of work that grain hands to threads and processes."""

    load: Callable[[range], Batch]
    batch_size: int
    firsts: tuple[int, ...]  # first row of each chunk of a batch
    size: int
    start: int
    steps: int

    def __len__(self) -> int:
        return self.steps * len(self.firsts)

    def __getitem__(self, chunk: int) -> Batch:
        step, part = divmod(chunk, len(self.firsts))
        first = (self.start + step) * self.batch_size + self.firsts[part]
        return self.load(range(first, first + self.size))


def _iterate(
    load: Callable[[range], Batch],
    config: DataConfig,
    batch_size: int,
    rows: Sequence[range] | None,
    start: int,
    steps: int,
) -> grain.DatasetIterator[Batch]:
    rows = rows or (range(batch_size),)
    whole = math.gcd(*map(len, rows))
    size = max(n for n in range(1, min(_CHUNK, whole) + 1) if whole % n == 0)
    firsts = tuple(first for block in rows for first in block[::size])
    parts = len(firsts)
    chunks = grain.MapDataset.source(_Chunks(load, batch_size, firsts, size, start, steps))
    threads = config.threads or min(os.cpu_count() or 1, _MOST)
    ahead = max(threads, parts)
    data = chunks.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
    if config.workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # grain reads flags of its own, which are not parsed in a notebook
        ahead = math.ceil(parts / config.workers)
        data = data.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(config.workers, ahead))
    data = data.batch(parts, batch_fn=_join)
    return iter(grain.experimental.ThreadPrefetchIterDataset(data, prefetch_buffer_size=config.prefetch))


def _join(chunks: Any) -> Batch:
    first = chunks[0]
    return dict(first) if len(chunks) == 1 else {key: np.concatenate([c[key] for c in chunks]) for key in first}
