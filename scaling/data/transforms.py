"""The geometries of training and evaluation: crops, rotations and flips, by the size of an image and random numbers."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from scaling.core.errors import UserError
from scaling.data.geometry import Geometry, Size, Turn, both_sides, whole
from scaling.data.resample import Box

DRAWS = 32  # random numbers per example


def draws(seed: int, first: int, count: int, view: int = 0) -> list[list[float]]:
    """The randomness of a view of the examples at positions `first` to `first + count` of a run.

    Philox is a function of a key and a counter. Each position owns 8 counts, that is 32 numbers, and each view a key:
    the numbers of an example depend on (seed, position, view) alone, however positions are distributed.

    Returns:
      For each example `DRAWS` numbers, uniform in [0, 1).
    """
    bits = np.random.Philox(key=seed % 2**64 + view * 2**64, counter=first * DRAWS // 4)
    return np.random.Generator(bits).random((count, DRAWS)).tolist()


def stream(seed: int, position: int, view: int = 0) -> np.random.Generator:
    """Further random numbers of a view of one example, beside its `draws`, in any number: each view has another key
    of its own, and each position 2^16 counts.
    """
    bits = np.random.Philox(key=seed % 2**64 + (view + 2**32) * 2**64, counter=position * 2**16)
    return np.random.Generator(bits)


def crop_box(
    u: Sequence[float], height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """The crop of torchvision's `RandomResizedCrop`: ten tries, then the largest central one with a permitted ratio.

    Args:
      u: the example's `draws`; the first 22 are used.
      height, width: height and width of the image.
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


RATIO = (3 / 4, 4 / 3)
CROPS = ("area", "ratio")


def random_resized_crop(
    u: Sequence[float],
    height: int,
    width: int,
    size: Size,
    scale: tuple[float, float] = (0.2, 1.0),
    flips: str = "none",
    ratio: tuple[float, float] = RATIO,
) -> Geometry:
    """A random part of an image, resized to `size` and flipped at random; arguments as for `crop_box` and `turn`.

    The aspect ratio of the crop is that of `size`, up to `ratio`.
    """
    turned = turn(u, flips)
    rows, columns = _before(turned, size)
    ratio = (ratio[0] * (columns / rows), ratio[1] * (columns / rows))
    return Geometry(crop_box(u, height, width, scale, ratio), both_sides(size), turned)


def _before(turned: Turn, size: Size) -> tuple[int, int]:
    """Height and width before turning, from those after it."""
    return both_sides(size)[::-1] if turned[2] else both_sides(size)


def ratio_crop(
    u: Sequence[float],
    height: int,
    width: int,
    size: Size,
    ratio: tuple[float, float],
    base: int = 0,
    flips: str = "none",
    good: Callable[[Geometry], bool] = lambda geometry: True,
) -> Geometry:
    """The crop of mmsegmentation's `RandomResize` and `RandomCrop`: an image resized, and a part of it.

    Ten positions are tried, and the eleventh is accepted as it is. A small image is padded to its right and below. The
    crop begins at a whole pixel of the image; the published one begins at a whole pixel of the resized image.

    Args:
      u: the example's `draws`; 0 to 25 are used.
      height, width: height and width of the image.
      size: size of the crop, after resizing.
      ratio: smallest and largest ratio; drawn uniformly.
      base: pixels of the shorter side at ratio 1; 0 for its stored size.
      flips: see `turn`.
      good: whether a crop is accepted.
    """
    scale = (ratio[0] + (ratio[1] - ratio[0]) * u[25]) * (base / min(height, width) if base else 1)
    turned = turn(u, flips)
    h, w = (max(1, round(side / scale)) for side in _before(turned, size))
    for i in range(0, 22, 2):
        upper, left = int((max(height - h, 0) + 1) * u[i]), int((max(width - w, 0) + 1) * u[i + 1])
        geometry = Geometry((left, upper, left + w, upper + h), both_sides(size), turned)
        if good(geometry):
            break
    return geometry


def of_several_classes(mask: np.ndarray, geometry: Geometry, ignore: int, share: float) -> bool:
    """Whether the part of a mask that a geometry takes has at least two classes, each with less than this share."""
    taken = np.empty(geometry.size, mask.dtype)
    geometry.mask(mask, taken, ignore)
    counts = np.unique(taken[taken != ignore], return_counts=True)[1]
    return len(counts) > 1 and counts.max() < share * counts.sum()


def centre_resize(height: int, width: int, size: Size) -> Geometry:
    """The largest central part of an image that has the shape of `size`, a square: the geometry of evaluation."""
    rows, columns = both_sides(size)
    h = min(height, max(1, round(width * rows / columns)))
    w = min(width, max(1, round(height * columns / rows)))
    return Geometry(_central(height, width, h, w), (rows, columns))


def shrunk(height: int, width: int, shorter: int) -> Geometry:
    """The whole image with its shorter side reduced to `shorter` pixels; unchanged if it is not larger."""
    factor = min(shorter / min(height, width), 1)
    return whole(height, width, (round(height * factor), round(width * factor)))


def rotation(u: Sequence[float], share: float, quarters: bool = False) -> float:
    """The angle by which an image is rotated at random, in radians: mmrotate's `PolyRandomRotate`.

    Args:
      u: the example's `draws`; 31 is used.
      share: probability of a rotation; else the angle is 0.
      quarters: rotate by one, two or three quarter turns only, for images with round objects, whose boxes stay upright.
    """
    if u[31] >= share:
        return 0.0
    turns = u[31] / share
    return math.tau * ((1 + int(3 * turns)) / 4 if quarters else turns)


def _central(height: int, width: int, h: int, w: int) -> Box:
    upper, left = (height - h) // 2, (width - w) // 2
    return left, upper, left + w, upper + h


# Which of (mirror left-right, mirror up-down, transpose) are drawn. From above, no direction is special.
FLIPS = {"none": (False, False, False), "horizontal": (True, False, False), "dihedral": (True, True, True)}


def turn(u: Sequence[float], kind: str) -> Turn:
    """A random symmetry of a square image: `none`, `horizontal` or `dihedral` (its eight symmetries).

    Args:
      u: the example's `draws`; 22 to 24 are used.
      kind: a key of `FLIPS`.

    Raises:
      UserError: unknown kind.
    """
    if kind not in FLIPS:
        raise UserError(f"flips={kind!r}: must be one of {', '.join(FLIPS)}")
    mirror_x, mirror_y, transpose = (may and u[22 + i] < 0.5 for i, may in enumerate(FLIPS[kind]))
    return mirror_x, mirror_y, transpose
