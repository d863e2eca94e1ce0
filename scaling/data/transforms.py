"""Crops, flips and resizing, functions of an image and of random numbers that write straight into a batch.

A batch is uint8 or float32. Every band is treated alike, whatever their number.
"""

import math
from collections.abc import Sequence

import numpy as np

from scaling.core.errors import UserError
from scaling.data.resample import Box, resample

DRAWS = 32  # random numbers an example may use


def draws(seed: int, first: int, count: int, view: int = 0) -> list[list[float]]:
    """The randomness of a view of the examples at positions `first` to `first + count` of a run.

    Philox is a function of a key and a counter: each position owns 8 counts, that is 32 numbers, and each view a key,
    so that what an example gets depends on (seed, position, view) alone, however the positions are distributed.

    Returns:
      For each example `DRAWS` numbers, uniform in [0, 1).
    """
    bits = np.random.Philox(key=seed % 2**64 + view * 2**64, counter=first * DRAWS // 4)
    return np.random.Generator(bits).random((count, DRAWS)).tolist()


def crop_box(
    u: Sequence[float], height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """The crop of torchvision's `RandomResizedCrop`: ten tries, then the largest central one with a permitted ratio.

    Args:
      u: the example's `draws`; the first 22 are used.
      height, width: of the image.
      scale: smallest and largest share of the area.
      ratio: smallest and largest width over height, drawn uniformly in the logarithm.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for i in range(0, 20, 2):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * u[i])
        aspect = math.exp(low + (high - low) * u[i + 1])
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            upper, left = int((height - h + 1) * u[20]), int((width - w + 1) * u[21])
            return left, upper, left + w, upper + h
    aspect = min(max(width / height, ratio[0]), ratio[1])
    return _central(height, width, min(height, round(width / aspect)), min(width, round(height * aspect)))


def random_resized_crop(
    image: np.ndarray,
    u: Sequence[float],
    out: np.ndarray,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> None:
    """Fills `out` [size, size, bands] with a random part of the image [height, width, bands]; `u` as in `crop_box`."""
    resample(image, crop_box(u, image.shape[0], image.shape[1], scale, ratio), out)


def centre_resize(image: np.ndarray, out: np.ndarray) -> None:
    """Fills `out` [size, size, bands] with the largest central square of the image: the transform of evaluation."""
    height, width = image.shape[:2]
    side = min(height, width)
    resample(image, _central(height, width, side, side), out)


def shrink(image: np.ndarray, shorter: int) -> np.ndarray:
    """The whole image with its shorter side reduced to `shorter` pixels; unchanged if it is not larger.

    The dtype stays the same, so that a set of images has one, whichever of them are larger.
    """
    height, width, bands = image.shape
    factor = shorter / min(height, width)
    if factor >= 1:
        return image
    small = np.empty((round(height * factor), round(width * factor), bands), image.dtype)
    resample(image, (0, 0, width, height), small)
    return small


def _central(height: int, width: int, h: int, w: int) -> Box:
    upper, left = (height - h) // 2, (width - w) // 2
    return left, upper, left + w, upper + h


# Which of (mirror left-right, mirror up-down, transpose) are drawn. Seen from above, no direction is special.
FLIPS = {"none": (False, False, False), "horizontal": (True, False, False), "dihedral": (True, True, True)}


def flip(square: np.ndarray, u: Sequence[float], kind: str) -> np.ndarray:
    """A view of a square image, mirrored at random: `none`, `horizontal` or `dihedral` (its eight symmetries).

    Args:
      square: [size, size, bands]; what is written into the view arrives there mirrored.
      u: the example's `draws`; 22 to 24 are used.
      kind: a key of `FLIPS`.

    Raises:
      UserError: unknown kind.
    """
    if kind not in FLIPS:
        raise UserError(f"unknown flips {kind!r}; choose one of: {', '.join(FLIPS)}")
    mirror_x, mirror_y, transpose = (may and u[22 + i] < 0.5 for i, may in enumerate(FLIPS[kind]))
    square = square.swapaxes(0, 1) if transpose else square
    square = square[::-1] if mirror_y else square
    return square[:, ::-1] if mirror_x else square
