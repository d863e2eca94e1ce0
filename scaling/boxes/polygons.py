"""Polygon overlap in float64, for evaluation: quadrilaterals of any shape, as they are in files.

The same number as DOTA_devkit's polyiou: areas count with the winding number, so non-convex quadrilaterals are right
too, in either orientation; a self-crossing one has the area that the formula gives. Two things are better here:
coordinates are relative to a corner of the pair instead of the image's, and upright boxes with integer coordinates are
exact: an overlap of one half is one half.
"""

from collections.abc import Iterator

import numpy as np

_BLOCK = 1 << 13  # pairs processed together: their intermediates fit in the cache
_PAIRS = 1 << 20  # pairs of hulls processed together


def polygon_area(corners: np.ndarray) -> np.ndarray:
    """Signed areas [...] of corners [..., n, 2], positive if clockwise on the screen; float64."""
    points = np.asarray(corners, np.float64)
    points = points - points[..., :1, :]
    x, y = points[..., 0], points[..., 1]
    return (x * np.roll(y, -1, -1) - np.roll(x, -1, -1) * y).sum(-1) / 2


def polygon_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of pairs of quadrilaterals: [n, 4, 2], [n, 4, 2] -> float64 [n].

    0 if neither has an area, in which case the devkit divides by zero.
    """
    a, b = (np.asarray(corners, np.float64).reshape(-1, 4, 2) for corners in (a, b))
    shared = polygon_shared(a, b)
    union = np.abs(polygon_area(a)) + np.abs(polygon_area(b)) - shared
    return np.where(union == 0, 0.0, shared / np.where(union == 0, 1, union))


def polygon_shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The area that pairs of quadrilaterals share: [n, 4, 2], [n, 4, 2] -> float64 [n]."""
    a, b = (np.asarray(corners, np.float64).reshape(-1, 4, 2) for corners in (a, b))
    blocks = [_shared(a[i : i + _BLOCK], b[i : i + _BLOCK]) for i in range(0, len(a), _BLOCK)]
    return np.concatenate(blocks) if blocks else np.zeros(0)


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    origin = b[:, :1]
    a, b = a - origin, b - origin
    directions = np.sign(polygon_area(a)) * np.sign(polygon_area(b))
    found: np.ndarray = sum(_in_triangle(a, b[:, i], b[:, i + 1]) for i in (1, 2)) * directions
    return found


def _in_triangle(quadrilateral: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Area of [n, 4, 2] inside the triangles of the origin and two corners [n, 2]; negative if one of them is reversed.

    In coordinates u and v, which are 0 and `size` at the corners of the triangle, the outline is clamped to the
    triangle: v to [0, size], then u to [0, size - v]. That changes no winding number inside.
    """
    size = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    sign = np.sign(size)[:, None]
    x, y = quadrilateral[..., 0], quadrilateral[..., 1]
    u = sign * (x * other[:, None, 1] - y * other[:, None, 0])
    v = sign * (one[:, None, 0] * y - one[:, None, 1] * x)
    size = np.abs(size)
    u_next, v_next = np.roll(u, -1, 1), np.roll(v, -1, 1)
    begin, end = (np.clip(ends, 0, size[:, None]) for ends in (v, v_next))
    rise = np.where(v_next == v, 1, v_next - v)
    first, last = ((u * (v_next - at) + u_next * (at - v)) / rise for at in (begin, end))
    over = first + begin - size[:, None], last + end - size[:, None]
    # clamp(u, 0, size - v) = max(u, 0) - max(u + v - size, 0)
    clamped = _above_zero(first, last, end - begin) - _above_zero(*over, end - begin)
    return clamped.sum(1) / np.where(size > 0, size, 1)


def _above_zero(first: np.ndarray, last: np.ndarray, way: np.ndarray) -> np.ndarray:
    """The integral of max(g, 0) over an interval on which g is linear between two values."""
    mixed = (first < 0) != (last < 0)
    slope = way / np.where(mixed, np.abs(last - first), 1)
    part = np.square(np.maximum(first, last)) * slope
    return np.where(mixed, part, np.maximum(first + last, 0) * way) / 2


def upright_meet(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether hulls (left, upper, right, lower) [..., 4] that broadcast share an area, without which polygons
    cannot.
    """
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    return np.asarray((high > low).all(-1))


def polygon_nms(corners: np.ndarray, scores: np.ndarray, threshold: float = 0.1) -> np.ndarray:
    """Greedy non-maximum suppression of quadrilaterals [n, 4, 2]: indices of those kept, best first, int64.

    Among equal scores the first is the best; the devkit leaves their order undefined.
    """
    corners = np.asarray(corners, np.float64).reshape(-1, 4, 2)
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    better, worse = _too_close(corners[order], threshold)
    first = np.searchsorted(better, np.arange(len(order) + 1))
    left = np.ones(len(order), bool)
    for i in np.flatnonzero(np.diff(first)):
        if left[i]:
            left[worse[first[i] : first[i + 1]]] = False
    return order[left]


def _too_close(corners: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of quadrilaterals [n, 4, 2] that overlap by more than the threshold: the first and the second of each,
    int64, in order.
    """
    found = [np.zeros((2, 0), np.int64)]
    for pairs in _meeting(np.concatenate((corners.min(1), corners.max(1)), axis=1)):
        first, second = np.sort(pairs, axis=0)
        found.append(np.stack((first, second))[:, polygon_iou(corners[first], corners[second]) > threshold])
    first, second = np.concatenate(found, axis=1)
    order = np.lexsort((second, first))
    return first[order], second[order]


def _meeting(hulls: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs of hulls [n, 4] that share an area, each once: int64 [2, m], in chunks.

    Sorted from left to right, the hulls that begin before another ends follow it directly.
    """
    order = np.argsort(hulls[:, 0], kind="stable")
    hulls = hulls[order]
    behind = np.searchsorted(hulls[:, 0], hulls[:, 2]) - np.arange(1, len(hulls) + 1)
    ends = np.cumsum(np.maximum(behind, 0))
    parts = np.searchsorted(ends, np.arange(_PAIRS, ends[-1] if len(ends) else 0, _PAIRS))
    for part in np.split(np.arange(len(hulls)), parts):
        count = np.maximum(behind[part], 0)
        one = np.repeat(part, count)
        other = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
        meet = upright_meet(hulls[one], hulls[other])
        yield np.stack((order[one[meet]], order[other[meet]]))
