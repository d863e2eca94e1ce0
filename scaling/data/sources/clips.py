"""Large images, cut into squares."""

import itertools
import threading
from typing import Any

import numpy as np

from scaling.data.geometry import window_starts
from scaling.data.images import CorruptImage, pixels_of
from scaling.data.sources.base import Stored


class Clips(Stored):
    """Squares of the images of another source, all of which are of one size, row by row, with their masks.

    Cut as by mmsegmentation's converters: squares begin every `size` pixels, and the last ones are shifted to end with
    the image. The image that was read last is cached for the squares that follow.

    Args:
      whole: the source of whole images, the first of which is readable.
      size: pixels along each side of a square.
    """

    def __init__(self, whole: Stored, size: int):
        self.whole, self.size, self.info = whole, size, whole.info
        self._last: tuple[int, dict[str, Any]] | None = None
        self._lock = threading.Lock()
        self._height, self._width = self._image(0)["image"].shape[:2]
        down, right = (window_starts(length, size, size) for length in (self._height, self._width))
        self._places = list(itertools.product(down, right))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_last", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _last=None, _lock=threading.Lock())

    def __len__(self) -> int:
        return len(self.whole) * len(self._places)  # type: ignore[arg-type]

    def kept(self, index: int) -> dict[str, Any]:
        """The pixels of a square, its mask and the label."""
        image, (top, left) = self._at(index)
        there = self._image(image)
        if there["image"].shape[:2] != (self._height, self._width):
            height, width, _ = there["image"].shape
            stated = f"{self._height} x {self._width}"
            raise CorruptImage(self.whole.name(image), f"has {height} x {width} pixels, the first one {stated}")
        part = np.s_[top : top + self.size, left : left + self.size]
        return {name: there[name][part] if name in ("image", "mask") else value for name, value in there.items()}

    def name(self, index: int) -> str:
        image, (top, left) = self._at(index)
        return f"{self.whole.name(image)} at {top}, {left}"

    def _at(self, index: int) -> tuple[int, tuple[int, int]]:
        image, place = divmod(index, len(self._places))
        return image, self._places[place]

    def _image(self, index: int) -> dict[str, Any]:
        """A whole example, decoded."""
        with self._lock:
            if self._last is None or self._last[0] != index:
                kept = self.whole.kept(index)
                self._last = index, {**kept, "image": pixels_of(kept["image"], self.whole.name(index))}
            return self._last[1]
