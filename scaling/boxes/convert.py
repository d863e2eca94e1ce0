"""Oriented boxes and quadrilaterals: one convention inside, corners at the border.

A box is (cx, cy, w, h, t): the middle, the sides, and the angle of the side w in radians. x points right and y down, so
that a positive angle turns clockwise on the screen. Its corners are

    (cx, cy) -+ w/2 (cos t, sin t) -+ h/2 (-sin t, cos t).

The same rectangle has many descriptions. `le90` is the one used internally: w >= h, t in [-pi/2, pi/2). Files and other
code use others: `le135` has w >= h and t in [-pi/4, 3 pi/4); `oc`, OpenCV's since 4.5.1, has t in (0, pi/2] and sides
in any order (mmrotate's names). All input and output of this project uses corners, which need no convention.

All functions take numpy or JAX arrays, also traced ones, and return the same kind and dtype. No shape depends on a
value.
"""

import math
from typing import Any

Array = Any  # numpy or JAX


def namespace(array: Array) -> Any:
    """The module whose functions work on an array: numpy or jax.numpy."""
    return array.__array_namespace__()


def corners(boxes: Array) -> Array:
    """Corners [..., 4, 2] of boxes [..., 5] in any convention, clockwise on the screen."""
    xp = namespace(boxes)
    centre, sides, angle = boxes[..., :2], boxes[..., 2:4] / 2, boxes[..., 4]
    cos, sin = xp.cos(angle), xp.sin(angle)
    along = sides[..., :1] * xp.stack((cos, sin), axis=-1)
    across = sides[..., 1:] * xp.stack((-sin, cos), axis=-1)
    around = (-along - across, along - across, along + across, across - along)
    return xp.stack([centre + corner for corner in around], axis=-2)


def hulls(quadrilaterals: Array) -> Array:
    """The upright boxes [..., 4] of (left, upper, right, lower) around corners [..., n, 2]."""
    xp = namespace(quadrilaterals)
    return xp.concatenate((quadrilaterals.min(-2), quadrilaterals.max(-2)), axis=-1)


def from_hulls(upright: Array) -> Array:
    """Upright boxes [..., 4] as boxes [..., 5] in le90."""
    xp = namespace(upright)
    centre, sides = (upright[..., :2] + upright[..., 2:]) / 2, upright[..., 2:] - upright[..., :2]
    return le90(xp.concatenate((centre, sides, xp.zeros_like(centre[..., :1])), axis=-1))


def from_rectangles(rectangles: Array) -> Array:
    """Boxes [..., 5] in le90 from the corners [..., 4, 2] of rectangles.

    For other quadrilaterals: the middle of the first diagonal and the lengths of the first two sides, as in the coder
    of Oriented R-CNN (mmrotate's poly2obb_le90); `from_quadrilaterals` encloses all corners.
    """
    xp = namespace(rectangles)
    first, second = rectangles[..., 1, :] - rectangles[..., 0, :], rectangles[..., 2, :] - rectangles[..., 1, :]
    centre = (rectangles[..., 0, :] + rectangles[..., 2, :]) / 2
    w, h = (xp.hypot(side[..., 0], side[..., 1]) for side in (first, second))
    longer = xp.where((w >= h)[..., None], first, second)
    angle = xp.arctan2(longer[..., 1], longer[..., 0])
    sides = xp.stack((xp.maximum(w, h), xp.minimum(w, h)), axis=-1)
    return le90(xp.concatenate((centre, sides, angle[..., None]), axis=-1))


def from_quadrilaterals(quadrilaterals: Array) -> Array:
    """The smallest boxes [..., 5] in le90 around corners [..., 4, 2] in any order, also crossed or non-convex.

    A side of the smallest rectangle lies along a side of the convex hull (Freeman and Shapira 1975), which joins two of
    the corners: all six pairs are tried. Corners on a line give a box without height.
    """
    xp = namespace(quadrilaterals)
    middle = quadrilaterals.mean(-2, keepdims=True)
    points = quadrilaterals - middle
    pairs = ((0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3))
    sides = xp.stack([points[..., j, :] - points[..., i, :] for i, j in pairs], axis=-2)
    length = xp.hypot(sides[..., 0], sides[..., 1])
    along = sides / xp.where(length > 0, length, 1)[..., None]  # [..., 6, 2]
    along = xp.where((length > 0)[..., None], along, xp.asarray((1.0, 0.0), dtype=along.dtype))
    across = xp.stack((-along[..., 1], along[..., 0]), axis=-1)
    lows, highs = [], []
    for axis in (along, across):
        reach = (points[..., None, :, :] * axis[..., :, None, :]).sum(-1)  # [..., 6, 4]
        lows.append(reach.min(-1))
        highs.append(reach.max(-1))
    low, high = xp.stack(lows, axis=-1), xp.stack(highs, axis=-1)  # [..., 6, 2]
    size = high - low
    best = xp.argmin(size[..., 0] * size[..., 1], axis=-1)[..., None, None]
    along, across, size, centre = (
        xp.take_along_axis(a, best, axis=-2)[..., 0, :] for a in (along, across, size, (low + high) / 2)
    )
    place = middle[..., 0, :] + centre[..., :1] * along + centre[..., 1:] * across
    angle = xp.arctan2(along[..., 1], along[..., 0])
    return le90(xp.concatenate((place, size, angle[..., None]), axis=-1))


def le90(boxes: Array) -> Array:
    """The same rectangles [..., 5], from any convention, with w >= h and the angle in [-pi/2, pi/2)."""
    return _longer_first(boxes, -math.pi / 2)


def le135(boxes: Array) -> Array:
    """The same rectangles [..., 5], from any convention, with w >= h and the angle in [-pi/4, 3 pi/4)."""
    return _longer_first(boxes, -math.pi / 4)


def oc(boxes: Array) -> Array:
    """The same rectangles [..., 5], from any convention, with the angle in (0, pi/2], the sides in either order."""
    xp = namespace(boxes)
    angle = -half_turns(-boxes[..., 4], -math.pi / 2)  # in (-pi/2, pi/2]
    turned = angle <= 0
    # For an angle just below zero the quarter turn would round to pi/2 itself, which is then used.
    w, h = boxes[..., 2], boxes[..., 3]
    return _joined(
        xp, boxes, xp.where(turned, h, w), xp.where(turned, w, h), xp.where(turned, angle + math.pi / 2, angle)
    )


def half_turns(angle: Array, start: float) -> Array:
    """Angles in [start, start + pi) that differ from these by whole half turns."""
    xp = namespace(angle)
    found = xp.mod(angle - start, math.pi) + start
    # Just below a multiple of pi the remainder is rounded up to pi itself.
    return xp.where(found >= start + math.pi, xp.asarray(start, dtype=found.dtype), found)


def _longer_first(boxes: Array, start: float) -> Array:
    xp = namespace(boxes)
    w, h, angle = boxes[..., 2], boxes[..., 3], boxes[..., 4]
    angle = half_turns(xp.where(w >= h, angle, angle + math.pi / 2), start)
    return _joined(xp, boxes, xp.maximum(w, h), xp.minimum(w, h), angle)


def _joined(xp: Any, boxes: Array, w: Array, h: Array, angle: Array) -> Array:
    return xp.concatenate((boxes[..., :2], xp.stack((w, h, angle), axis=-1)), axis=-1)
