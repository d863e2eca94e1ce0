"""Crops, flips and resizing, each a pure function of an image and a generator. Pillow does the resampling.

uint8 images stay uint8; all others become float32. Every band is treated alike, whatever their number.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from scaling.errors import UserError

Box = tuple[int, int, int, int]  # left, upper, right, lower, in pixels


def crop_box(
    rng: np.random.Generator, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """The crop of torchvision's `RandomResizedCrop`: ten tries, then the largest central one with a permitted ratio.

    Args:
      rng: consumed by at most 22 draws.
      height, width: of the image.
      scale: smallest and largest share of the area.
      ratio: smallest and largest width over height, drawn uniformly in the logarithm.
    """
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            upper, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return left, upper, left + w, upper + h
    aspect = min(max(width / height, ratio[0]), ratio[1])
    return _central(height, width, min(height, round(width / aspect)), min(width, round(height * aspect)))


def random_resized_crop(
    image: np.ndarray,
    rng: np.random.Generator,
    size: int,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """A random part of the image, [height, width, bands], resized to [size, size, bands]."""
    return resize(image, crop_box(rng, *image.shape[:2], scale, ratio), (size, size))


def centre_resize(image: np.ndarray, size: int) -> np.ndarray:
    """The largest central square of the image, resized to [size, size, bands]: the transform of evaluation."""
    height, width = image.shape[:2]
    side = min(height, width)
    return resize(image, _central(height, width, side, side), (size, size))


def shrink(image: np.ndarray, shorter: int) -> np.ndarray:
    """The whole image with its shorter side reduced to `shorter` pixels; unchanged if it is not larger."""
    height, width = image.shape[:2]
    factor = shorter / min(height, width)
    if factor >= 1:
        return image
    return resize(image, (0, 0, width, height), (round(height * factor), round(width * factor)))


def resize(image: np.ndarray, box: Box, size: tuple[int, int]) -> np.ndarray:
    """Antialiased bicubic resampling of a box, as `PIL.Image.resize(box=...)` of the whole image.

    Args:
      image: [height, width, bands].
      box: the part to resample; pixels around it take part where the filter reaches them.
      size: height and width of the result.

    Returns:
      [*size, bands], uint8 for uint8, else float32.
    """
    height, width = image.shape[:2]
    left, upper, right, lower = box
    # Only what the filter can reach is handed to Pillow: its copy of the pixels is not free.
    reach_x = math.ceil(2 * max(1.0, (right - left) / size[1])) + 1
    reach_y = math.ceil(2 * max(1.0, (lower - upper) / size[0])) + 1
    x0, y0 = max(0, left - reach_x), max(0, upper - reach_y)
    part = image[y0 : min(height, lower + reach_y), x0 : min(width, right + reach_x)]
    box = (left - x0, upper - y0, right - x0, lower - y0)

    def resampled(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC, box=box))

    if part.dtype != np.uint8:
        part = part.astype(np.float32, copy=False)
    elif part.shape[2] == 3:
        return resampled(part)
    # Band by band: Pillow knows no other layout of many bands, and takes a fourth uint8 band for alpha.
    return np.stack([resampled(part[..., band]) for band in range(part.shape[2])], axis=-1)


def _central(height: int, width: int, h: int, w: int) -> Box:
    upper, left = (height - h) // 2, (width - w) // 2
    return left, upper, left + w, upper + h


def _none(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image


def _horizontal(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image[:, ::-1] if rng.random() < 0.5 else image


def _dihedral(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the eight symmetries of the square: seen from above, no direction is special."""
    mirror_x, mirror_y, transpose = rng.integers(2, size=3)
    image = image[:: 1 - 2 * mirror_y, :: 1 - 2 * mirror_x]
    return image.swapaxes(0, 1) if transpose else image


FLIPS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "none": _none,
    "horizontal": _horizontal,
    "dihedral": _dihedral,
}


def flip(image: np.ndarray, rng: np.random.Generator, kind: str) -> np.ndarray:
    """A square image mirrored at random: `none`, `horizontal` or `dihedral` (all eight symmetries of overhead images).

    Raises:
      UserError: unknown kind.
    """
    if kind not in FLIPS:
        raise UserError(f"unknown flips {kind!r}; choose one of: {', '.join(FLIPS)}")
    return FLIPS[kind](image, rng)
