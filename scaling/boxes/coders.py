"""Boxes as differences to anchors and proposals, and back: the two coders of Oriented R-CNN (Xie et al. 2021).

As in mmrotate 0.x (midpoint_offset_coder.py, delta_xywha_rbbox_coder.py). Boxes are in le90, see
`scaling.boxes.convert`; all functions take numpy or JAX.
"""

import math
from collections.abc import Sequence

from scaling.boxes.convert import Array, corners, from_rectangles, half_turns, hulls, namespace

MIDPOINT_STDS = (1.0, 1.0, 1.0, 1.0, 0.5, 0.5)
DELTA_STDS = (0.1, 0.1, 0.2, 0.2, 0.1)

_TOUCHES = 0.1  # pixels: a corner this near to a side of the hull touches it
_LONGEST = abs(math.log(16 / 1000))  # largest absolute difference in the logarithm of a side


def midpoint_offset(anchors: Array, boxes: Array) -> Array:
    """Differences [..., 6] of oriented boxes [..., 5] to upright anchors (left, upper, right, lower) [..., 4].

    The differences of the middle and the sides of the hull, and the distances from the middles of its upper and right
    sides to the corners on them. If a side of the box lies on them, its right or lower end counts.
    """
    xp = namespace(boxes)
    outline = corners(boxes)
    hull = hulls(outline)
    x, y, w, h = _middle_and_sides(hull)
    on_top = xp.abs(outline[..., 1] - hull[..., 1:2]) <= _TOUCHES
    on_right = xp.abs(outline[..., 0] - hull[..., 2:3]) <= _TOUCHES
    top = xp.where(on_top, outline[..., 0], -xp.inf).max(-1)
    right = xp.where(on_right, outline[..., 1], -xp.inf).max(-1)
    ax, ay, aw, ah = _middle_and_sides(anchors)
    found = ((x - ax) / aw, (y - ay) / ah, xp.log(w / aw), xp.log(h / ah), (top - x) / w, (right - y) / h)
    return _scaled(xp.stack(found, axis=-1), [1 / std for std in MIDPOINT_STDS])


def from_midpoint_offset(anchors: Array, deltas: Array) -> Array:
    """Oriented boxes [..., 5] from differences [..., 6] to upright anchors [..., 4].

    The six numbers give a parallelogram, whose corners are all moved out to the distance of the farther two, which
    makes it a rectangle. Boxes are not clipped to the image.
    """
    xp = namespace(deltas)
    dx, dy, dw, dh, da, db = xp.moveaxis(_scaled(deltas, MIDPOINT_STDS), -1, 0)
    ax, ay, aw, ah = _middle_and_sides(anchors)
    x, y = ax + dx * aw, ay + dy * ah
    w, h = (side * xp.exp(xp.clip(d, -_LONGEST, _LONGEST)) for side, d in ((aw, dw), (ah, dh)))
    top, right = xp.clip(da, -0.5, 0.5) * w, xp.clip(db, -0.5, 0.5) * h
    spokes = xp.stack(
        [xp.stack(at, axis=-1) for at in ((top, -h / 2), (w / 2, right), (-top, h / 2), (-w / 2, -right))], axis=-2
    )
    length = xp.hypot(spokes[..., 0], spokes[..., 1])
    spokes = spokes * (length.max(-1, keepdims=True) / xp.where(length > 0, length, 1))[..., None]
    return from_rectangles(xp.stack((x, y), axis=-1)[..., None, :] + spokes)


def rotated_delta(proposals: Array, boxes: Array, stds: Sequence[float] = DELTA_STDS) -> Array:
    """Differences [..., 5] of oriented boxes [..., 5] to oriented proposals [..., 5], each divided by one of `stds`.

    The offset between the middles is measured along the sides of the proposal. Of the two descriptions of a box, which
    differ by exchanged sides and a quarter turn, the one whose angle is nearer to that of the proposal is used.
    """
    xp = namespace(boxes)
    x, y, w, h, angle = xp.moveaxis(boxes, -1, 0)
    px, py, pw, ph, turned = xp.moveaxis(proposals, -1, 0)
    cos, sin = xp.cos(turned), xp.sin(turned)
    dx, dy = (cos * (x - px) + sin * (y - py)) / pw, (cos * (y - py) - sin * (x - px)) / ph
    as_is = half_turns(angle - turned, -math.pi / 2)
    swapped = half_turns(angle - turned + math.pi / 2, -math.pi / 2)
    keeps = xp.abs(as_is) < xp.abs(swapped)
    dw, dh = xp.log(xp.where(keeps, w, h) / pw), xp.log(xp.where(keeps, h, w) / ph)
    found = (dx, dy, dw, dh, xp.where(keeps, as_is, swapped))
    return _scaled(xp.stack(found, axis=-1), [1 / std for std in stds])


def from_rotated_delta(
    proposals: Array,
    deltas: Array,
    size: tuple[float, float] | None = None,
    stds: Sequence[float] = DELTA_STDS,
) -> Array:
    """Oriented boxes [..., 5] from differences [..., 5] to oriented proposals [..., 5]; `stds` as in `rotated_delta`.

    Args:
      size: height and width of the image, to which middles are clipped; None: no clipping.
    """
    xp = namespace(deltas)
    dx, dy, dw, dh, dt = xp.moveaxis(_scaled(deltas, stds), -1, 0)
    px, py, pw, ph, turned = xp.moveaxis(proposals, -1, 0)
    cos, sin = xp.cos(turned), xp.sin(turned)
    x, y = px + dx * pw * cos - dy * ph * sin, py + dx * pw * sin + dy * ph * cos
    w, h = (side * xp.exp(xp.clip(d, -_LONGEST, _LONGEST)) for side, d in ((pw, dw), (ph, dh)))
    if size is not None:
        x, y = xp.clip(x, 0, size[1] - 1), xp.clip(y, 0, size[0] - 1)
    angle = half_turns(xp.where(w > h, turned + dt, turned + dt + math.pi / 2), -math.pi / 2)
    return xp.stack((x, y, xp.maximum(w, h), xp.minimum(w, h), angle), axis=-1)


def _middle_and_sides(upright: Array) -> tuple[Array, Array, Array, Array]:
    left, upper, right, lower = (upright[..., i] for i in range(4))
    return (left + right) / 2, (upper + lower) / 2, right - left, lower - upper


def _scaled(deltas: Array, by: object) -> Array:
    xp = namespace(deltas)
    return deltas * xp.asarray(by, dtype=deltas.dtype)
