"""Predictions for every pixel of images of any size, through overlapping windows.

As mmsegmentation's `slide_inference`: windows start every `stride` pixels, the last one is shifted inwards to end with
the image, and logits are averaged over the windows that contain a pixel before a class is chosen. The device holds one
batch of windows at a time, and the host only unfinished rows, so that memory grows with the width of an image and not
with its height.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from scaling.core.errors import TrainingError
from scaling.data.geometry import window_starts

Read = Callable[[int, int, int, int], np.ndarray]  # top, left, bottom, right -> pixels [bottom - top, right - left, B]
Image = tuple[Read, int, int]  # reader, height and width
Forward = Callable[[np.ndarray], ArrayLike]  # pixels [n, h, w, B] -> logits [n, h, w, C]


def window_counts(length: int, window: int, stride: int) -> np.ndarray:
    """Number of windows that contain each pixel of an axis, int64 [length]; for an image, multiply those of both
    axes.
    """
    counts = np.zeros(length, np.int64)
    for start in window_starts(length, window, stride):
        counts[start : start + window] += 1
    return counts


About = TypeVar("About")
Told = TypeVar("Told")


def in_flight(
    batches: Iterable[tuple[About, np.ndarray]], forward: Callable[[np.ndarray], Told]
) -> Iterator[tuple[About, Told]]:
    """Each batch's metadata with the result of `forward` on its pixels, yielded one batch late, so that the device does
    not wait.
    """
    before: tuple[About, Told] | None = None
    for about, pixels in batches:
        given = forward(pixels)
        if before:
            yield before
        before = about, given
    if before:
        yield before


@dataclasses.dataclass(frozen=True)
class Windows:
    """Sliding windows over an image.

    Attributes:
      size: height and width of a window.
      stride: pixels between the starts of neighbouring windows, down and to the right.
      batch: windows per batch; the last batch is padded with windows of `fill`.
      fill: value of padding around an image that is smaller than a window; its predictions are dropped.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    batch: int = 1
    fill: float = 0.0

    def places(self, height: int, width: int) -> list[tuple[int, int]]:
        """Top and left of every window, row by row."""
        down = window_starts(height, self.size[0], self.stride[0])
        return list(itertools.product(down, window_starts(width, self.size[1], self.stride[1])))

    def logits_by_rows(self, read: Read, height: int, width: int, forward: Forward) -> Iterator[tuple[int, np.ndarray]]:
        """Mean logits of one image [height, width], as first row and rows, like `logits_of_images`."""
        for _, top, rows in self.logits_of_images([(read, height, width)], forward):
            yield top, rows

    def logits_of_images(self, images: Iterable[Image], forward: Forward) -> Iterator[tuple[int, int, np.ndarray]]:
        """Mean logits over the windows that contain each pixel, image by image; windows of two images may share a
        batch.

        Args:
          images: reader, height and width of each; the next is requested when the last is read.
          forward: always called with [batch, *size, bands]; may be jitted. The next batch is started before the result
            of the last is used, so that the device does not wait.

        Yields:
          index of the image from 0, first row, and float32 [rows, width, classes]; every row of an image once, from the
          top.
        """
        for chunk, logits in in_flight(self._batches(images), forward):
            windows = np.asarray(logits, np.float32)
            for (image, top, left, after), window in zip(chunk, windows, strict=False):
                image.add(top, left, window)
                if rows := image.finished(after):
                    yield image.number, *rows

    def _batches(self, images: Iterable[Image]) -> Iterator[tuple[list["_Place"], np.ndarray]]:
        """Windows and their pixels [batch, *size, bands]."""
        chunk: list[_Place] = []
        out = np.empty(0)
        for number, (read, height, width) in enumerate(images):
            sums = _Sums(number, height, width, self)
            places = self.places(height, width)
            for (top, left), after in zip(places, [*(y for y, _ in places[1:]), height], strict=True):
                pixels = read(top, left, min(top + self.size[0], height), min(left + self.size[1], width))
                if not chunk:
                    out = np.full((self.batch, *self.size, pixels.shape[2]), self.fill, pixels.dtype)
                np.copyto(out[len(chunk), : pixels.shape[0], : pixels.shape[1]], pixels, casting="safe")
                chunk.append((sums, top, left, after))
                if len(chunk) == self.batch:
                    yield chunk, out
                    chunk = []
        if chunk:
            yield chunk, out


class _Sums:
    """Sums of logits for the rows of an image that still await windows.

    Attributes:
      number: index of the image.
    """

    def __init__(self, number: int, height: int, width: int, windows: Windows):
        self.number, self._size = number, windows.size
        self._down = window_counts(height, windows.size[0], windows.stride[0])
        self._right = window_counts(width, windows.size[1], windows.stride[1])
        self._top, self._band = 0, np.zeros((0, width, 0), np.float32)

    def add(self, top: int, left: int, window: np.ndarray) -> None:
        """Adds the logits of a window; no later window begins above it."""
        if not self._band.size:
            self._band = np.zeros((0, self._band.shape[1], window.shape[2]), np.float32)
        lower = min(top + self._size[0], len(self._down))
        if (more := lower - self._top - len(self._band)) > 0:
            self._band = np.concatenate([self._band, np.zeros((more, *self._band.shape[1:]), np.float32)])
        part = self._band[top - self._top : top - self._top + self._size[0], left : left + self._size[1]]
        part += window[: part.shape[0], : part.shape[1]]

    def finished(self, upto: int) -> tuple[int, np.ndarray] | None:
        """First row and mean logits of the rows above `upto` that have not been taken yet."""
        top, done = self._top, upto - self._top
        if done <= 0:
            return None
        counted = self._down[top:upto, None] * self._right
        means = self._band[:done] / counted[:, :, None].astype(np.float32)
        self._top, self._band = upto, self._band[done:]
        return top, means


_Place = tuple[_Sums, int, int, int]  # of a window: its image, top, left, and the top of the next window


def sliding_logits(image: np.ndarray, forward: Forward, windows: Windows) -> np.ndarray:
    """Mean logits of an image [height, width, bands]: float32 [height, width, classes]."""
    height, width, _ = image.shape
    return np.concatenate([x for _, x in windows.logits_by_rows(reader(image), height, width, forward)])


def sliding_classes(image: np.ndarray, forward: Forward, windows: Windows) -> np.ndarray:
    """The likeliest class of every pixel of an image, uint8 [height, width], or uint16 beyond 256 classes; the
    logits of the whole image are never held.
    """
    height, width, _ = image.shape
    return np.concatenate([likeliest(x) for _, x in windows.logits_by_rows(reader(image), height, width, forward)])


def not_finite(what: str) -> TrainingError:
    """The error of a network that returns NaN or infinity: its likeliest class would be the first, its objects none."""
    return TrainingError(
        f"the model returns NaN or infinity for {what}: give images in the units of the training; if those of the "
        "training have it too, train again with a lower optimizer.base_lr or with optimizer.clip_norm"
    )


def likeliest(logits: np.ndarray) -> np.ndarray:
    """The class of the largest logit [..., classes], the first of several: uint8, or uint16 beyond 256 classes.

    Raises:
      TrainingError: some logits are not finite: the largest of NaNs would be class 0.
    """
    if not (finite := np.isfinite(logits)).all():
        bad = int((~finite).any(-1).sum())
        raise not_finite(f"{bad:,} of {finite[..., 0].size:,} pixels")
    return logits.argmax(-1).astype(np.uint8 if logits.shape[-1] <= 256 else np.uint16)


def reader(image: np.ndarray) -> Read:
    """Reads parts of an image given as an array."""
    return lambda top, left, bottom, right: image[top:bottom, left:right]
