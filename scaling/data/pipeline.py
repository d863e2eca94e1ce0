"""Batches: sources -> one global order -> decode, crop, flip -> grain's threads and processes -> numpy arrays.

The guarantee: the global batch of a step depends on the seed, the source and the batch size alone. It is the same for
any number of hosts, threads and worker processes, and after a resume at any step.
"""

import concurrent.futures
import dataclasses
import functools
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import grain
import numpy as np
from absl import flags

from scaling.core.errors import TrainingError, UserError
from scaling.core.files import in_bucket
from scaling.data.config import OF_ANY_BANDS, DataConfig, held_out, upright_classes
from scaling.data.geometry import Geometry, Size, both_sides
from scaling.data.images import CorruptImage, checked
from scaling.data.order import Order
from scaling.data.photometric import PHOTOMETRIC
from scaling.data.sources.base import Source
from scaling.data.spot_checks import layout
from scaling.data.targets import Boxes, Masks, Target, view_name
from scaling.data.transforms import (
    RATIO,
    centre_resize,
    draws,
    of_several_classes,
    random_resized_crop,
    ratio_crop,
    rotation,
    stream,
)
from scaling.data.view_changes import VIEW_CHANGES

log = logging.getLogger(__name__)

Batch = dict[str, np.ndarray]
T = TypeVar("T")

_CHUNK = 16  # examples per task: large enough that grain's cost per task vanishes
_ENDLESS = 2**48  # steps
_MOST = 64  # threads of one process at most
_REQUESTS = 256  # concurrent requests for images in a bucket
_TRIES = 64  # unreadable records in a row before giving up


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
    loader = _loader(source, config, image_size, order, views, targets)
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
    loader = _loader(source, config, image_size, order, views, targets)
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
    loader = _loader(source, config, 0, order, 1, targets)
    for position in range(len(source)):
        record = order.evaluation(position)
        try:
            yield {**loader._read(record), "id": record}
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
    def _loader(self) -> "_Loader":
        return _loader(self._source, self._config, 0, Order(len(self._source), 0), 1, ())

    def reason(self, record: int) -> str:
        """Name of a record, and the reason."""
        try:
            self._loader._read(record)
        except CorruptImage as error:
            return str(error)
        return f"{self._source.name(record)}: could be read only now"

    def warn(self, batch: Batch) -> None:
        """Logs the records that a batch of `eval_batches` skipped."""
        for record in batch["skipped"][batch["skipped"] >= 0].tolist():
            log.warning("skipped an unreadable image: %s", self.reason(record))


@functools.cache
def _requests() -> concurrent.futures.ThreadPoolExecutor:
    """Threads that wait for requests to buckets, shared by all readers of this process."""
    return concurrent.futures.ThreadPoolExecutor(_REQUESTS, thread_name_prefix="requests")


@dataclasses.dataclass(frozen=True)
class _Loader:
    """Loads examples by position, with the `targets` that move with the pixels. Pickled for worker processes."""

    source: Source
    config: DataConfig
    image_size: Size
    order: Order
    bands: int
    dtype: np.dtype
    views: int
    targets: tuple[Target, ...]
    upright: tuple[int, ...] = ()  # indices of classes, see DataConfig.rotate_upright

    def training(self, positions: range) -> Batch:
        """Augmented examples at positions of the training order."""
        batch = self._empty(positions)
        random = [draws(self.order.seed, positions.start, len(positions), view) for view in range(self.views)]
        for row, example in enumerate(
            self._side_by_side(lambda row: self._readable(row, positions[row], batch), positions)
        ):
            self._label(example, batch, row)
            for view in range(self.views):
                self._put(example, self._drawn(example, random[view][row]), batch, row, view)
                if change := PHOTOMETRIC.get(self.config.photometric):
                    change(batch[view_name("image", view)][row], random[view][row])
                self._change(batch, row, view)
        return batch

    def _side_by_side(self, read: Callable[[int], T], positions: range) -> Iterable[T]:
        """The examples of the rows, in order: requested at once from a bucket, else read one after the other."""
        rows = range(len(positions))
        return (
            _requests().map(read, rows) if in_bucket(self.config.source) and not self.config.stage else map(read, rows)
        )

    def _change(self, batch: Batch, row: int, view: int) -> None:
        """Changes the photometry of a view, by its number if the views are changed differently."""
        if change := VIEW_CHANGES.get(self.config.photometric):
            numbers = stream(self.order.seed, int(batch["index"][row]), view)
            change(batch[view_name("image", view)][row], numbers, view)

    def _drawn(self, example: dict[str, Any], random: Sequence[float]) -> Geometry:
        (height, width, _), c = example["image"].shape, self.config
        upright = "boxes" in example and bool(np.isin(example["boxes"].classes, self.upright).any())
        rotated = functools.partial(dataclasses.replace, angle=rotation(random, c.rotate, upright))
        if c.crop == "ratio":
            crop = ratio_crop(
                *(random, height, width, self.image_size, c.resize_ratio, c.resize_base, c.flips),
                good=lambda geometry: self._balanced(example, rotated(geometry)),
            )
        else:
            # A rotated rectangle that is stretched along one axis becomes a parallelogram.
            ratio = (1.0, 1.0) if any(isinstance(target, Boxes) for target in self.targets) else RATIO
            crop = random_resized_crop(random, height, width, self.image_size, c.crop_scale, c.flips, ratio)
        return rotated(crop)

    def _balanced(self, example: dict[str, Any], geometry: Geometry) -> bool:
        """Whether a crop has several classes, each below `max_class_share`; always true without a mask, or for a share
        of 1.
        """
        masks = next((target for target in self.targets if isinstance(target, Masks)), None)
        share = self.config.max_class_share
        return not masks or share >= 1 or of_several_classes(example["mask"], geometry, masks.ignore, share)

    def _label(self, example: dict[str, Any], batch: Batch, row: int) -> None:
        self.source.info.label.put(example["label"], batch, row)

    def _put(self, example: dict[str, Any], geometry: Geometry, batch: Batch, row: int, view: int) -> None:
        """Writes a view of an example: the image and the targets that follow it, under one geometry."""
        geometry.image(example["image"], batch[view_name("image", view)][row])
        for target in self.targets:
            arrays = {name: batch[view_name(name, view)] for name in target.arrays}
            target.put(target.moved(example[target.name], geometry), arrays, row)

    def evaluation(self, positions: range) -> Batch:
        """Plain examples at positions of the evaluation order; black with weight 0 beyond its end or if corrupt."""
        batch = self._empty(positions) | {"weight": np.zeros(len(positions), np.float32)}
        random = [draws(self.order.seed, positions.start, len(positions), view) for view in range(1, self.views)]
        for row, position in enumerate(positions):
            if position >= self.order.held_out:
                continue
            batch["id"][row] = self.order.evaluation(position)
            try:
                example = self._read(batch["id"][row])
            except CorruptImage:
                batch["skipped"][row] = batch["id"][row]
                continue
            self._label(example, batch, row)
            height, width, _ = example["image"].shape
            self._put(example, centre_resize(height, width, self.image_size), batch, row, 0)
            for view, numbers in enumerate(random, 1):
                self._put(example, self._drawn(example, numbers[row]), batch, row, view)
                self._change(batch, row, view)
            batch["weight"][row] = 1
        return batch

    def _empty(self, positions: range) -> Batch:
        rows, size = len(positions), both_sides(self.image_size)
        dtype = np.uint8 if self.dtype == np.uint8 else np.float32
        shape = (rows, *size, len(self.config.bands) or self.bands)
        batch: Batch = {}
        for view in range(self.views):
            batch[view_name("image", view)] = np.zeros(shape, dtype)
            for target in self.targets:
                batch |= {view_name(name, view): x for name, x in target.empty(rows, size).items()}
        return {
            **batch,
            **self.source.info.label.empty(rows, size),
            "index": np.array(positions, np.int64),
            "id": np.full(rows, -1, np.int64),
            "skipped": np.full(rows, -1, np.int64),
        }

    def _readable(self, row: int, position: int, batch: Batch) -> dict[str, Any]:
        """The example at a position, or the next readable one after it in the same epoch."""
        for shift in range(min(_TRIES, self.order.epoch)):
            record = self.order.training(position, shift)
            try:
                example = self._read(record)
            except CorruptImage as error:
                # Only the first is noted: each of the others has a position of its own in this epoch.
                batch["skipped"][row] = record if shift == 0 else batch["skipped"][row]
                reason = error
                continue
            batch["id"][row] = record
            return example
        raise TrainingError(f"no readable image among {shift + 1} of {self.config.source}; the last is {reason}")

    def _read(self, record: int) -> dict[str, Any]:
        example = self.source[int(record)]
        try:
            image = checked(example["image"], "")
            for target in self.targets:
                target.check(example[target.name], *image.shape[:2])
        except CorruptImage as error:  # the name may cost a request: it is looked up only when needed
            raise CorruptImage(self.source.name(int(record)), error.reason) from error
        if image.shape[2] == 1 and self.bands == 3 and image.dtype == self.dtype:
            image = np.repeat(image, 3, axis=2)
        chosen = self.config.bands
        fits = image.shape[2] > max(chosen) if chosen else image.shape[2] == self.bands
        if not fits or image.dtype != self.dtype:
            is_, want = (f"{n} bands of {d}" for n, d in ((image.shape[2], image.dtype), (self.bands, self.dtype)))
            raise CorruptImage(self.source.name(int(record)), f"has {is_}, the others {want}")
        taken = {target.name: example[target.name] for target in self.targets}
        return {"image": image[..., chosen] if chosen else image, "label": example["label"], **taken}


def _loader(
    source: Source, config: DataConfig, image_size: Size, order: Order, views: int, targets: Sequence[Target]
) -> _Loader:
    following = tuple(target for target in targets if target.follows)
    bands, dtype = layout(source, config.bands)
    if (other := OF_ANY_BANDS.get(config.photometric)) and (len(config.bands) or bands, dtype) != (3, np.uint8):
        taken, at = f"{len(config.bands) or bands} bands of {dtype}", f"data.photometric={config.photometric}"
        raise UserError(f"{at}: needs three 8-bit colours, not {taken}; {other} is for any bands")
    return _Loader(source, config, image_size, order, bands, dtype, views, following, upright_classes(config, targets))


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
