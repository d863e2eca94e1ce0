"""Random changes of brightness, colour and sharpness of contrastive views, in place: the recipe of BYOL (Grill et al.,
2006.07733) as in facebookresearch/moco-v3, and one for any number of bands.

The first view is always blurred. The second is seldom blurred, and sometimes solarised; further views are like the
second. Pillow, which the published code uses, rounds to 8 bits after every change and blurs by three boxes; here only
the result is rounded, and the blur is Gaussian. Compiled with numba, which takes a quarter of Pillow's time and
releases the GIL.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np

from scaling.data.resample import compiled

_JITTERED, _GREY = 0.8, 0.2  # probabilities
_BLURRED, _SOLARISED = (1.0, 0.1), (0.0, 0.2)  # probabilities for the first view, and for others
_STRENGTHS = np.array([0.4, 0.4, 0.2, 0.1])  # ranges of brightness, contrast, saturation and hue
_SIGMA, _AT = (0.1, 2.0), 224  # pixels of the blur, in images of this height; in proportion in others
_ORDERS = np.array(list(itertools.permutations(range(4))))

Change = Callable[[np.ndarray, np.random.Generator, int], None]


def byol(image: np.ndarray, random: np.random.Generator, view: int = 0) -> None:
    """The published recipe, of an image uint8 [height, width, 3] of red, green and blue.

    Brightness and contrast by 0.6 to 1.4, saturation by 0.8 to 1.2 and hue by -0.1 to 0.1 of the circle, in random
    order, of 80 % of the images; a fifth is grey; blur by 0.1 to 2 pixels at 224, solarised above 128.

    Args:
      image: changed in place.
      random: random numbers of this view; ten are used.
      view: 0 for the first.
    """
    u, second = random.random(10), min(view, 1)
    planes = np.empty((3, *image.shape[:2]), np.float32)
    _take(image, planes)
    if u[0] < _JITTERED:
        jitter(planes, (2 * u[1:5] - 1) * _STRENGTHS, _ORDERS[int(len(_ORDERS) * u[5])])
    if u[6] < _GREY:
        _saturation(*planes.reshape(3, -1), np.float32(0))
    values = np.empty(image.shape, np.float32)
    _interleave(planes, values)
    if u[7] < _BLURRED[second]:
        values = blurred(values, _sigma(u[8], len(image)))
    _store(values, bool(u[9] < _SOLARISED[second]), image)


def jitter(planes: np.ndarray, by: np.ndarray, order: np.ndarray) -> None:
    """torchvision's `ColorJitter` of an image float32 [3, height, width], 0 to 255, in place.

    Args:
      planes: red, green and blue.
      by: factors of brightness, contrast and saturation, minus 1; and the shift of the hue, as a share of the circle.
      order: order of these four changes.
    """
    colours = planes.reshape(3, -1)
    factors = np.array([1 + by[0], 1 + by[1], 1 + by[2], by[3]], np.float32)
    for which in order:
        _JITTERS[which](*colours, factors[which])


@compiled
def _take(image, planes):
    height, width, _ = image.shape
    for c in range(3):
        for y in range(height):
            for x in range(width):
                planes[c, y, x] = image[y, x, c]


@compiled
def _interleave(planes, values):
    height, width, _ = values.shape
    for y in range(height):
        for x in range(width):
            for c in range(3):
                values[y, x, c] = planes[c, y, x]


@compiled
def _store(values, solarised, image):
    """Rounds to 8 bits, solarised above 128 if asked. values, image: [height, width, 3]."""
    height, width, _ = values.shape
    for y in range(height):
        for x in range(width):
            for c in range(3):
                level = np.uint8(values[y, x, c] + np.float32(0.5))
                image[y, x, c] = np.uint8(255) - level if solarised and level >= 128 else level


@compiled
def _cut(x):
    x = x if x > 0 else np.float32(0)
    return x if x < 255 else np.float32(255)


@compiled
def _grey(red, green, blue):
    return np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue


@compiled
def _brightness(r, g, b, factor):
    for i in range(len(r)):
        r[i], g[i], b[i] = _cut(factor * r[i]), _cut(factor * g[i]), _cut(factor * b[i])


@compiled
def _contrast(r, g, b, factor):
    total = 0.0
    for i in range(len(r)):
        total += _grey(r[i], g[i], b[i])
    rest = np.float32(1 - factor) * np.float32(math.floor(total / len(r) + 0.5))
    for i in range(len(r)):
        r[i], g[i], b[i] = _cut(factor * r[i] + rest), _cut(factor * g[i] + rest), _cut(factor * b[i] + rest)


@compiled
def _saturation(r, g, b, factor):
    for i in range(len(r)):
        rest = (np.float32(1) - factor) * _grey(r[i], g[i], b[i])
        r[i], g[i], b[i] = _cut(factor * r[i] + rest), _cut(factor * g[i] + rest), _cut(factor * b[i] + rest)


@compiled
def _hue(r, g, b, turn):
    for i in range(len(r)):
        red, green, blue = r[i], g[i], b[i]
        most = red if red > green else green
        most = most if most > blue else blue
        least = red if red < green else green
        least = least if least < blue else blue
        spread = most - least
        inverse = np.float32(1) / (spread if spread > 0 else np.float32(1))
        sextant = (red - green) * inverse + np.float32(4)
        sextant = (blue - red) * inverse + np.float32(2) if most == green else sextant
        sextant = (green - blue) * inverse if most == red else sextant
        sextant += np.float32(6) * turn
        r[i] = most - spread * _part(sextant + np.float32(5))
        g[i] = most - spread * _part(sextant + np.float32(3))
        b[i] = most - spread * _part(sextant + np.float32(1))


@compiled
def _part(place):
    """Distance of a colour channel from the largest one, 0 to 1, over the six sextants of hue."""
    place -= np.float32(6) * np.floor(place * np.float32(1 / 6))
    other = np.float32(4) - place
    place = place if place < other else other
    place = place if place < 1 else np.float32(1)
    return place if place > 0 else np.float32(0)


_JITTERS = (_brightness, _contrast, _saturation, _hue)


def byol_bands(image: np.ndarray, random: np.random.Generator, view: int = 0) -> None:
    """Changes an image [height, width, any bands]: in 80 % of the images the contrast of each band about its mean by
    0.6 to 1.4, and its brightness by -0.4 to 0.4 of its standard deviation; blurred as published. Greying, solarising
    and hue are left out, since they are defined for colours only.

    Args:
      image: uint8 or float32, changed in place; 8 bits are rounded and clipped.
      random: random numbers of this view; three, and two for each band, are used.
      view: 0 for the first.
    """
    bands = image.shape[2]
    u = random.random(3 + 2 * bands)
    shift, contrast = _STRENGTHS[:2, None] * (2 * u[3:].reshape(2, bands) - 1)
    values = image.astype(np.float32)
    if u[0] < _JITTERED:
        mean = values.mean((0, 1), dtype=np.float64)
        deviation = np.sqrt(np.maximum(np.square(values).mean((0, 1), dtype=np.float64) - mean**2, 0))
        values *= np.float32(1 + contrast)
        values += np.float32(shift * deviation - contrast * mean)
    if u[1] < _BLURRED[min(view, 1)]:
        values = blurred(values, _sigma(u[2], len(image)))
    image[...] = np.clip(np.rint(values), 0, 255) if image.dtype == np.uint8 else values


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of an image float32 [height, width, bands], whose border is extended. Releases the GIL.

    The kernel ends at three standard deviations.
    """
    height, width, bands = image.shape
    reach = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    rows, out = np.ascontiguousarray(image).reshape(height, -1), np.empty_like(image, order="C")
    _blur(rows, (weights / weights.sum()).astype(np.float32), bands, out.reshape(height, width * bands))
    return out


@compiled
def _blur(rows, weights, bands, out):
    """Adds shifted whole rows, or rows shifted by a pixel if `along` them. rows, out: [height, width * bands]."""
    height, inner = rows.shape
    reach = len(weights) // 2
    edge, last = reach * bands, height - 1
    row = np.empty(inner + 2 * edge, np.float32)
    middle = row[edge : edge + inner]
    for y in range(height):
        _scale(rows[y], weights[reach], middle)
        for k in range(1, reach + 1, 2):
            far, weight = (k + 1, weights[reach + k + 1]) if k < reach else (k, np.float32(0))
            near_pair = rows[max(y - k, 0)], rows[min(y + k, last)]
            far_pair = rows[max(y - far, 0)], rows[min(y + far, last)]
            _add(near_pair, weights[reach + k], far_pair, weight, middle)
        for i in range(edge):
            row[i] = middle[i % bands]
            row[edge + inner + i] = middle[inner - bands + i % bands]
        _scale(middle, weights[reach], out[y])
        for k in range(1, reach + 1, 2):
            far, weight = (k + 1, weights[reach + k + 1]) if k < reach else (k, np.float32(0))
            near_pair, far_pair = _shifted(row, edge, k * bands, inner), _shifted(row, edge, far * bands, inner)
            _add(near_pair, weights[reach + k], far_pair, weight, out[y])


@compiled
def _shifted(row, edge, by, count):
    return row[edge - by : edge - by + count], row[edge + by : edge + by + count]


@compiled
def _scale(source, weight, out):
    for i in range(len(out)):
        out[i] = weight * source[i]


@compiled
def _add(pair, weight, other, other_weight, out):
    """Adds two pairs at once, each equally far from the middle: fewer passes over the sum."""
    (a, b), (c, d) = pair, other
    for i in range(len(out)):
        out[i] += weight * (a[i] + b[i]) + other_weight * (c[i] + d[i])


def _sigma(u: float, height: int) -> float:
    return float(_SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * u) * height / _AT


VIEW_CHANGES: dict[str, Change] = {"byol": byol, "byol_bands": byol_bands}
