"""Predictions for every pixel of images of any size: a network looks through overlapping windows.

As mmsegmentation's `slide_inference`: windows start every `stride` pixels, the last one is shifted inwards to end with
the image, logits are summed and divided by how many windows saw a pixel; only then is a class chosen. A batch of
windows is on the device at a time, and the rows of windows that are not finished are on the host, so that memory grows
with the width of an image and not with its height.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from scaling.data.geometry import window_starts

Read = Callable[[int, int, int, int], np.ndarray]  # top, left, bottom, right -> pixels [bottom - top, right - left, B]
Forward = Callable[[np.ndarray], ArrayLike]  # pixels [n, h, w, B] -> logits [n, h, w, C]


def window_counts(length: int, window: int, stride: int) -> np.ndarray:
    """How many windows see each pixel of an axis, int64 [length]; of an image, their products."""
    counts = np.zeros(length, np.int64)
    for start in window_starts(length, window, stride):
        counts[start : start + window] += 1
    return counts


@dataclasses.dataclass(frozen=True)
class Windows:
    """How an image is looked at.

    Attributes:
      size: height and width of a window.
      stride: from one to the next, down and to the right.
      batch: windows at a time; every batch has this many, the last ones of an image may be of `fill`.
      fill: value of pixels beyond an image that is smaller than a window; they are cut off again.
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
        """Mean logits over the windows that see each pixel.

        Args:
          read: pixels of a part of the image, which is [height, width].
          height, width: of the image.
          forward: always given [batch, *size, bands]; may be jitted. The next batch is asked for before the result of
            the last is looked at, so that the device does not wait.

        Yields:
          top and float32 [rows, width, classes], downwards, all rows of the image once.
        """
        places = self.places(height, width)
        down = window_counts(height, self.size[0], self.stride[0])
        right = window_counts(width, self.size[1], self.stride[1])
        top, band = 0, np.zeros((0, width, 0), np.float32)
        for start, logits in self._in_flight(read, height, width, forward, places):
            chunk, left = places[start : start + self.batch], places[start + self.batch :][:1]
            if not band.size:
                band = np.zeros((0, width, logits.shape[3]), np.float32)
            lower = min(chunk[-1][0] + self.size[0], height)
            more = np.zeros((max(lower - top - len(band), 0), *band.shape[1:]), np.float32)
            band = np.concatenate([band, more]) if len(more) else band
            for (y, x), window in zip(chunk, logits, strict=False):
                part = band[y - top : y - top + self.size[0], x : x + self.size[1]]
                part += window[: part.shape[0], : part.shape[1]]
            done = (left[0][0] if left else height) - top  # no window is to come above there
            if done > 0:
                counted = down[top : top + done, None] * right
                yield top, band[:done] / counted[:, :, None].astype(np.float32)
                top, band = top + done, band[done:]

    def _in_flight(
        self, read: Read, height: int, width: int, forward: Forward, places: list[tuple[int, int]]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The first place of every batch and its logits, one batch behind what the device has been given."""
        before: tuple[int, ArrayLike] | None = None
        for start in range(0, len(places), self.batch):
            given = forward(self._pixels(read, height, width, places[start : start + self.batch]))
            if before:
                yield before[0], np.asarray(before[1], np.float32)
            before = start, given
        if before:
            yield before[0], np.asarray(before[1], np.float32)

    def _pixels(self, read: Read, height: int, width: int, chunk: Iterable[tuple[int, int]]) -> np.ndarray:
        """A batch of windows [batch, *size, bands]."""
        out: np.ndarray | None = None
        for row, (top, left) in enumerate(chunk):
            pixels = read(top, left, min(top + self.size[0], height), min(left + self.size[1], width))
            if out is None:
                out = np.full((self.batch, *self.size, pixels.shape[2]), self.fill, pixels.dtype)
            out[row, : pixels.shape[0], : pixels.shape[1]] = pixels
        assert out is not None
        return out


def sliding_logits(image: np.ndarray, forward: Forward, windows: Windows) -> np.ndarray:
    """Mean logits of an image [height, width, bands]: float32 [height, width, classes]."""
    height, width, _ = image.shape
    return np.concatenate([x for _, x in windows.logits_by_rows(reader(image), height, width, forward)])


def sliding_classes(image: np.ndarray, forward: Forward, windows: Windows) -> np.ndarray:
    """The likeliest class of every pixel of an image, uint8 [height, width], uint16 beyond 256 classes; the logits of
    the whole image are never held.
    """
    height, width, _ = image.shape
    return np.concatenate([likeliest(x) for _, x in windows.logits_by_rows(reader(image), height, width, forward)])


def likeliest(logits: np.ndarray) -> np.ndarray:
    """The class of the largest logit [..., classes], the first of several: uint8, or uint16 beyond 256 classes."""
    return logits.argmax(-1).astype(np.uint8 if logits.shape[-1] <= 256 else np.uint16)


def reader(image: np.ndarray) -> Read:
    """Reads parts of an image that is an array."""
    return lambda top, left, bottom, right: image[top:bottom, left:right]
