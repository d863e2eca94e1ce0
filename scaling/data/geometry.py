"""What is taken of an image and how it is turned: drawn once, applied to the image and to whatever belongs to it."""

import dataclasses

import numpy as np

from scaling.core.errors import UserError
from scaling.data.resample import Box, resample

Size = int | tuple[int, int]  # the side of a square, or height and width
Turn = tuple[bool, bool, bool]  # mirrored left-right, mirrored up-down, transposed; in this order

_AS_IT_IS: Turn = (False, False, False)


def both_sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A box of an image, resized and then turned.

    Points are (x, y) in pixels, x to the right and y down; the centre of the first pixel is (0.5, 0.5).

    Attributes:
      box: left, upper, right, lower, in pixels of the image. What of it lies outside of the image is padding.
      size: height and width of what comes out.
      turn: one of the eight symmetries of a square.
      part: whether something of the image may be left out, and with it what lies there.
    """

    box: Box
    size: tuple[int, int]
    turn: Turn = _AS_IT_IS
    part: bool = True

    @property
    def mirrors(self) -> bool:
        """Whether left and right hands are exchanged: what went round clockwise goes round the other way."""
        return sum(self.turn) % 2 == 1

    def image(self, image: np.ndarray, out: np.ndarray) -> None:
        """Fills `out` [*size, bands] with what is taken of an image [height, width, bands]; see `resample`."""
        height, width = image.shape[:2]
        left, upper, right, lower = self.box
        above, before = max(0, -upper), max(0, -left)
        around = (above, max(0, lower - height)), (before, max(0, right - width)), (0, 0)
        if any(map(any, around)):
            image = np.pad(image, around)
        resample(image, (left + before, upper + above, right + before, lower + above), self._turned(out))

    def mask(self, mask: np.ndarray, out: np.ndarray, outside: int) -> None:
        """Fills `out` [*size] with the nearest pixels of a mask [height, width], and with `outside` beyond it."""
        plain = self._turned(out)
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
        """Where points [..., 2] of the image come to lie, float32; those outside of the box lie outside."""
        mirror_x, mirror_y, transpose = self.turn
        left, upper, right, lower = self.box
        height, width = self.size[::-1] if transpose else self.size
        x = (points[..., 0].astype(np.float64) - left) * (width / (right - left))
        y = (points[..., 1].astype(np.float64) - upper) * (height / (lower - upper))
        x, y = width - x if mirror_x else x, height - y if mirror_y else y
        return np.stack((y, x) if transpose else (x, y), axis=-1).astype(np.float32)

    def takes(self, points: np.ndarray) -> np.ndarray:
        """Which points [..., 2] of the image lie in what is taken of it, bool [...]; no turn changes that."""
        left, upper, right, lower = self.box
        inside = (points >= (left, upper)) & (points < (right, lower))
        return np.asarray(inside.all(-1) | (not self.part))

    def _turned(self, out: np.ndarray) -> np.ndarray:
        """A view of `out`: what is written into it arrives there turned."""
        mirror_x, mirror_y, transpose = self.turn
        out = out.swapaxes(0, 1) if transpose else out
        out = out[::-1] if mirror_y else out
        return out[:, ::-1] if mirror_x else out


def whole(height: int, width: int, size: tuple[int, int]) -> Geometry:
    """All of an image of so many pixels, resized."""
    return Geometry((0, 0, width, height), size, part=False)


def _nearest(low: int, high: int, count: int) -> np.ndarray:
    """The pixels of an axis in which the centres of `count` new ones between two edges lie, int64 [count]."""
    return np.floor(low + (np.arange(count) + 0.5) * ((high - low) / count)).astype(np.int64)


def window_starts(length: int, window: int, stride: int) -> tuple[int, ...]:
    """Where windows start along an axis of so many pixels; one that is shorter than the window has one, at 0.

    Raises:
      UserError: a stride that is not positive, or beyond the window: pixels between two windows would not be seen.
    """
    if not 0 < stride <= window:
        raise UserError(f"stride={stride}: windows of {window} pixels need one of 1 to {window}")
    count = max(length - window + stride - 1, 0) // stride + 1
    return tuple(max(min(i * stride, length - window), 0) for i in range(count))
