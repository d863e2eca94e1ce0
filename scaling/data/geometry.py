"""The geometry of a crop or resize: drawn once, and applied to the image and its targets."""

import dataclasses
import functools
import math

import numpy as np

from scaling.core.errors import UserError
from scaling.data.resample import Box, resample, rotate

Size = int | tuple[int, int]  # the side of a square, or height and width
Turn = tuple[bool, bool, bool]  # mirrored left-right, mirrored up-down, transposed; in this order

_AS_IT_IS: Turn = (False, False, False)


def both_sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A box of an image, resized, rotated by an angle and then turned.

    Points are (x, y) in pixels, x to the right and y down; the centre of the first pixel is (0.5, 0.5).

    Attributes:
      box: left, upper, right, lower, in pixels of the image. The part outside the image is padding.
      size: height and width of the result.
      turn: one of the eight symmetries of a square.
      part: whether parts of the image, and the objects in them, may be left out.
      angle: rotation in radians, clockwise on the screen, about the middle of the result, whose corners then show image
        beyond the box, or padding.
    """

    box: Box
    size: tuple[int, int]
    turn: Turn = _AS_IT_IS
    part: bool = True
    angle: float = 0.0

    @property
    def mirrors(self) -> bool:
        """Whether the geometry swaps left and right, that is, reverses orientation."""
        return sum(self.turn) % 2 == 1

    def image(self, image: np.ndarray, out: np.ndarray) -> None:
        """Fills `out` [*size, bands] with the part of an image [height, width, bands] that the geometry takes; see
        `resample`.
        """
        if self.angle:
            self._rotated(image, self._turned(out))
            return
        height, width = image.shape[:2]
        left, upper, right, lower = self.box
        above, before = max(0, -upper), max(0, -left)
        around = (above, max(0, lower - height)), (before, max(0, right - width)), (0, 0)
        if any(map(any, around)):
            image = np.pad(image, around)
        resample(image, (left + before, upper + above, right + before, lower + above), self._turned(out))

    def mask(self, mask: np.ndarray, out: np.ndarray, outside: int) -> None:
        """Fills `out` [*size] with the nearest pixels of a mask [height, width], and with `outside` beyond its
        edges.
        """
        plain = self._turned(out)
        if self.angle:
            x, y = self._seen(plain.shape)
            inside = (x >= 0) & (x < mask.shape[1]) & (y >= 0) & (y < mask.shape[0])
            plain[...] = np.where(inside, mask[np.where(inside, y, 0), np.where(inside, x, 0)], outside)
            return
        left, upper, right, lower = self.box
        rows = _nearest(upper, lower, plain.shape[0])
        columns = _nearest(left, right, plain.shape[1])
        inside = [(places >= 0) & (places < count) for places, count in zip((rows, columns), mask.shape, strict=True)]
        if all(map(np.all, inside)):
            plain[...] = mask[np.ix_(rows, columns)]
            return
        plain[...] = outside
        plain[np.ix_(*inside)] = mask[np.ix_(rows[inside[0]], columns[inside[1]])]

    def points(self, points: np.ndarray) -> np.ndarray:
        """Image points [..., 2] in coordinates of the result, float32; points outside the box lie outside the
        result.
        """
        mirror_x, mirror_y, transpose = self.turn
        x, y, height, width = self._before_turn(points)
        x, y = width - x if mirror_x else x, height - y if mirror_y else y
        return np.stack((y, x) if transpose else (x, y), axis=-1).astype(np.float32)

    def takes(self, points: np.ndarray) -> np.ndarray:
        """Whether image points [..., 2] are inside the part that is taken, bool [...]; independent of `turn`."""
        if self.angle:
            x, y, height, width = self._before_turn(points)
            return (x >= 0) & (x < width) & (y >= 0) & (y < height)
        left, upper, right, lower = self.box
        inside = (points >= (left, upper)) & (points < (right, lower))
        return np.asarray(inside.all(-1) | (not self.part))

    def _before_turn(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
        """Points after the box was resized and rotated, before it is turned; with its height and width then."""
        left, upper, right, lower = self.box
        height, width = self.size[::-1] if self.turn[2] else self.size
        x = (points[..., 0].astype(np.float64) - left) * (width / (right - left))
        y = (points[..., 1].astype(np.float64) - upper) * (height / (lower - upper))
        if self.angle:
            (c, s), x, y = self._direction, x - width / 2, y - height / 2
            x, y = c * x - s * y + width / 2, s * x + c * y + height / 2
        return x, y, height, width

    @functools.cached_property
    def _direction(self) -> tuple[float, float]:
        """Cosine and sine of the angle, rounded to where every maths library agrees."""
        return round(math.cos(self.angle), 12), round(math.sin(self.angle), 12)

    def _seen(self, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Column and row of the image pixel that contains the middle of every rotated pixel, int64 [h, w]."""
        (height, width), (c, s), (left, upper, right, lower) = size[:2], self._direction, self.box
        x, y = np.arange(width) + (0.5 - width / 2), np.arange(height)[:, None] + (0.5 - height / 2)
        across, down = c * x + s * y + width / 2, c * y - s * x + height / 2
        across, down = left + across * ((right - left) / width), upper + down * ((lower - upper) / height)
        return np.floor(across).astype(np.int64), np.floor(down).astype(np.int64)

    def _rotated(self, image: np.ndarray, out: np.ndarray) -> None:
        """Resizes the part of an image that a rotated rectangle covers, and fills `out` [h, w, bands] with the
        rectangle.
        """
        (height, width, bands), (c, s) = out.shape, self._direction
        reach = (
            math.ceil((height * abs(c) + width * abs(s)) / 2) + 1,
            math.ceil((width * abs(c) + height * abs(s)) / 2) + 1,
        )
        first = height // 2 - reach[0], width // 2 - reach[1]
        resized = np.zeros((2 * reach[0], 2 * reach[1], bands), np.float32)
        left, upper, right, lower = self.box
        rows, top, bottom = _within(image.shape[0], upper, (lower - upper) / height, first[0], len(resized))
        columns, start, stop = _within(image.shape[1], left, (right - left) / width, first[1], resized.shape[1])
        if rows.stop > rows.start and columns.stop > columns.start:
            resample(image, (start, top, stop, bottom), resized[rows, columns])
        rotate(resized, (width / 2 - first[1], height / 2 - first[0]), (c, s), out)

    def _turned(self, out: np.ndarray) -> np.ndarray:
        """A view of `out` in which content written upright appears turned."""
        mirror_x, mirror_y, transpose = self.turn
        out = out.swapaxes(0, 1) if transpose else out
        out = out[::-1] if mirror_y else out
        return out[:, ::-1] if mirror_x else out


def whole(height: int, width: int, size: tuple[int, int]) -> Geometry:
    """The geometry that resizes a whole image."""
    return Geometry((0, 0, width, height), size, part=False)


def _nearest(low: int, high: int, count: int) -> np.ndarray:
    """Indices of the pixels of an axis that contain the centres of `count` new pixels between two edges, int64
    [count].
    """
    return np.floor(low + (np.arange(count) + 0.5) * ((high - low) / count)).astype(np.int64)


def _within(length: int, begin: float, step: float, first: int, count: int) -> tuple[slice, float, float]:
    """Slice of the new pixels whose middle lies inside an axis of `length` pixels, and the range of the axis that
    they show. New pixel i, `step` wide, begins at `begin` + i * `step`; i runs from `first`, `count` times.
    """
    numbers = np.arange(first, first + count)
    middles = begin + (numbers + 0.5) * step
    inside = np.flatnonzero((middles > 0) & (middles < length))
    if not len(inside):
        return slice(0, 0), 0.0, 0.0
    low, high = int(inside[0]), int(inside[-1]) + 1
    return slice(low, high), begin + (first + low) * step, begin + (first + high) * step


def window_starts(length: int, window: int, stride: int) -> tuple[int, ...]:
    """Starts of the windows along an axis of `length` pixels; an axis shorter than the window has one window, at 0.

    Raises:
      UserError: a stride that is not positive, or larger than the window, which would leave pixels uncovered.
    """
    if not 0 < stride <= window:
        raise UserError(f"stride={stride}: must be from 1 to {window}, the pixels of a window")
    count = max(length - window + stride - 1, 0) // stride + 1
    return tuple(max(min(i * stride, length - window), 0) for i in range(count))
