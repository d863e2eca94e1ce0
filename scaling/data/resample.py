"""Antialiased bicubic resampling of images with any number of bands, compiled with numba.

The filter is that of `PIL.Image.resize`: Keys' cubic with a = -0.5, stretched by the reduction, so that every pixel of
the source counts. Results agree with Pillow's for float images; for 8-bit images Pillow also rounds and clips what its
first pass makes, which costs a level here and there. Pillow has no images of many bands and takes three times as long.

Both passes add whole rows, which vectorises; between them the image is transposed. Sums are in a fixed order without
contraction to fused multiply-adds, so every machine gets the same pixels. A rotated image is resampled before rotation.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

Box = tuple[int, int, int, int]
Edges = tuple[float, float, float, float]
Taps = tuple[Any, Any, Any]  # first source row [n], number of rows [n], weights [n, most rows]

_REACH = 2.0  # reach of the cubic filter, in pixels of the larger grid
_BLOCK = 16  # rows transposed at once: float32 values in a cache line


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function on first use, and caches the machine code for later processes if a folder is writable."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)


# Value added before a result is clipped and cast, and the bounds of the clip.
_STORE = {
    np.dtype(np.uint8): (np.float32(0.5), np.float32(0), np.float32(255)),
    np.dtype(np.uint16): (np.float32(0.5), np.float32(0), np.float32(65535)),
    np.dtype(np.float32): (np.float32(0), np.float32(-np.inf), np.float32(np.inf)),
}


def resample(image: np.ndarray, box: Box | Edges, out: np.ndarray) -> None:
    """Fills `out` with a box of the image, as `PIL.Image.resize(box=...)` of the whole image. Releases the GIL.

    Args:
      image: [height, width, bands], any real type.
      box: left, upper, right, lower, in pixels; pixels around it take part where the filter reaches them.
      out: [h, w, bands], uint8 or uint16 (rounded and clipped) or float32; any strides, mirrored ones too.
    """
    _resample(np.ascontiguousarray(image), box, out, *_STORE[out.dtype])


def rotate(image: np.ndarray, middle: tuple[float, float], direction: tuple[float, float], out: np.ndarray) -> None:
    """Fills `out` with a rectangle of its size about a point of the image, which is rotated clockwise on the screen;
    interpolated between the four nearest pixels. Releases the GIL.

    Args:
      image: float32 [height, width, bands], a pixel larger on each side than the rectangle needs.
      middle: x and y of the point, in pixels; the middle of the first pixel is (0.5, 0.5).
      direction: cosine and sine of the angle.
      out: see `resample`.
    """
    _rotate(np.ascontiguousarray(image, np.float32), middle, direction, out, *_STORE[out.dtype])


@compiled
def _rotate(
    image: np.ndarray,
    middle: tuple[float, float],
    direction: tuple[float, float],
    out: np.ndarray,
    plus: float,
    low: float,
    high: float,
) -> None:
    h, w, bands = out.shape
    last_y, last_x = image.shape[0] - 2, image.shape[1] - 2
    c, s = direction
    for i in range(h):
        dy = i + 0.5 - h / 2
        for j in range(w):
            dx = j + 0.5 - w / 2
            x, y = c * dx + s * dy + middle[0] - 0.5, c * dy - s * dx + middle[1] - 0.5
            x0, y0 = min(max(math.floor(x), 0), last_x), min(max(math.floor(y), 0), last_y)
            right, down = np.float32(x - x0), np.float32(y - y0)
            for band in range(bands):
                above = image[y0, x0, band] * (1 - right) + image[y0, x0 + 1, band] * right
                below = image[y0 + 1, x0, band] * (1 - right) + image[y0 + 1, x0 + 1, band] * right
                out[i, j, band] = min(max(above * (1 - down) + below * down + plus, low), high)


@compiled
def _resample(image: np.ndarray, box: Box | Edges, out: np.ndarray, plus: float, low: float, high: float) -> None:
    height, width, bands = image.shape
    h, w, _ = out.shape
    left, upper, right, lower = box
    first, count, weights = _taps(height, h, upper, lower)
    first_x, count_x, weights_x = _taps(width, w, left, right)
    start, stop = first_x[0], first_x[-1] + count_x[-1]
    rows = np.empty((h, (stop - start) * bands), np.float32)
    _add_rows(image.reshape(height, -1)[:, start * bands : stop * bands], first, count, weights, rows)
    columns = np.empty((stop - start, bands * h), np.float32)
    _transpose(rows, columns.reshape(-1, h))
    resized = np.empty((w, bands * h), np.float32)
    _add_rows(columns, first_x - start, count_x, weights_x, resized)
    for y in range(h):
        for x in range(w):
            for band in range(bands):
                out[y, x, band] = min(max(resized[x, band * h + y] + plus, low), high)


@compiled
def _taps(size: int, new_size: int, low: float, high: float) -> Taps:
    """The source pixels of each new pixel, and their weights, which add up to one."""
    scale = (high - low) / new_size
    stretch = max(scale, 1.0)
    reach = _REACH * stretch
    first, count = np.empty(new_size, np.int64), np.empty(new_size, np.int64)
    weights = np.zeros((new_size, 2 * math.ceil(reach) + 1), np.float32)
    for i in range(new_size):
        centre = low + (i + 0.5) * scale
        begin, end = max(0, int(centre - reach + 0.5)), min(size, int(centre + reach + 0.5))
        values = [_cubic((k + 0.5 - centre) / stretch) for k in range(begin, end)]
        total = sum(values)
        for k in range(end - begin):
            weights[i, k] = values[k] / total
        first[i], count[i] = begin, end - begin
    return first, count, weights


@compiled
def _cubic(x: float) -> float:
    """Keys (1981), equation 4 with a = -0.5, also known as Catmull-Rom."""
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < _REACH else 0.0


@compiled
def _add_rows(source: np.ndarray, first: np.ndarray, count: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Row i of `out` becomes the weighted sum of the rows first[i] ... of `source`, four at a time."""
    columns = out.shape[1]
    for i in range(len(out)):
        row, begin, w, k = out[i], first[i], weights[i], 0
        row[:] = 0
        while k + 4 <= count[i]:
            a, b, c, d = source[begin + k], source[begin + k + 1], source[begin + k + 2], source[begin + k + 3]
            for j in range(columns):
                row[j] += w[k] * a[j] + w[k + 1] * b[j] + w[k + 2] * c[j] + w[k + 3] * d[j]
            k += 4
        while k < count[i]:
            a = source[begin + k]
            for j in range(columns):
                row[j] += w[k] * a[j]
            k += 1


@compiled
def _transpose(source: np.ndarray, out: np.ndarray) -> None:
    """out[j, i] = source[i, j], in blocks that stay in the cache."""
    height, width = source.shape
    for begin in range(0, height, _BLOCK):
        for j in range(width):
            for i in range(begin, min(begin + _BLOCK, height)):
                out[j, i] = source[i, j]
