"""Examples of a source: read, checked, cropped, flipped and changed, as rows of a batch of numpy arrays."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from scaling.core.errors import TrainingError, UserError
from scaling.core.files import in_bucket
from scaling.data.config import OF_ANY_BANDS, DataConfig, upright_classes
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

Batch = dict[str, np.ndarray]
T = TypeVar("T")

_REQUESTS = 256  # concurrent requests for images in a bucket
_TRIES = 64  # unreadable records in a row before giving up


@functools.cache
def _requests() -> concurrent.futures.ThreadPoolExecutor:
    """Threads that wait for requests to buckets, shared by all readers of this process."""
    return concurrent.futures.ThreadPoolExecutor(_REQUESTS, thread_name_prefix="requests")


@dataclasses.dataclass(frozen=True)
class Loader:
    """Examples of a source by position. Pickled for worker processes.

    Attributes:
      source, config: source of the images, and how they are read and augmented.
      image_size: pixels along each side, or height and width; 0 if examples are only read.
      order: records at the positions.
      bands, dtype: what all stored images have.
      views: crops per image.
      targets: targets that move with the pixels.
      upright: indices of classes, see `DataConfig.rotate_upright`.
    """

    source: Source
    config: DataConfig
    image_size: Size
    order: Order
    bands: int
    dtype: np.dtype
    views: int
    targets: tuple[Target, ...]
    upright: tuple[int, ...] = ()

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
                example = self.read(batch["id"][row])
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
                example = self.read(record)
            except CorruptImage as error:
                # Only the first is noted: each of the others has a position of its own in this epoch.
                batch["skipped"][row] = record if shift == 0 else batch["skipped"][row]
                reason = error
                continue
            batch["id"][row] = record
            return example
        raise TrainingError(f"no readable image among {shift + 1} of {self.config.source}; the last is {reason}")

    def read(self, record: int) -> dict[str, Any]:
        """A record as it is stored: `image` with the bands taken, `label` and the targets. Raises CorruptImage."""
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


def loader_of(
    source: Source, config: DataConfig, image_size: Size, order: Order, views: int, targets: Sequence[Target]
) -> Loader:
    following = tuple(target for target in targets if target.follows)
    bands, dtype = layout(source, config.bands)
    if (other := OF_ANY_BANDS.get(config.photometric)) and (len(config.bands) or bands, dtype) != (3, np.uint8):
        taken, at = f"{len(config.bands) or bands} bands of {dtype}", f"data.photometric={config.photometric}"
        raise UserError(f"{at}: needs three 8-bit colours, not {taken}; {other} is for any bands")
    return Loader(source, config, image_size, order, bands, dtype, views, following, upright_classes(config, targets))
