"""Intersection over union of upright and of oriented boxes.

The second box is expressed in the frame of the first, which is a unit square around the origin: ratios of areas are the
same there, and equal, parallel or thin boxes are as well conditioned as any. The square clips the second box by its
four half-planes, without sorting or compacting vertices: the part of an edge outside a half-plane is projected onto its
line. The clipped outline winds around every point of the square as before, and therefore

    area = integral of clamp(x) d(clamp(y)) along the four edges,

and a rounding error at a crossing moves two pieces that join there, so its effect is of second order. No decision
depends on comparing nearly equal numbers: the known failures of methods that do (equal boxes with an overlap of 1/3,
negative areas) cannot occur.
"""

from typing import Any

from scaling.boxes.convert import Array, namespace


def rotated_iou(a: Array, b: Array) -> Array:
    """Intersection over union of boxes [..., 5] that broadcast against each other: [...], in [0, 1].

    0 for boxes without area. Symmetric up to rounding; errors of a few 1e-7 in float32.

    Args:
      a, b: (cx, cy, w, h, t) in any convention, numpy or JAX; see `scaling.boxes.convert`.
    """
    xp = namespace(a)
    cos, sin = xp.cos(a[..., 4]), xp.sin(a[..., 4])
    there = (a[..., 2] > 0) & (a[..., 3] > 0) & (b[..., 2] > 0) & (b[..., 3] > 0)
    width, height = (xp.where(there, a[..., side], 1) for side in (2, 3))
    away, down = b[..., 0] - a[..., 0], b[..., 1] - a[..., 1]
    x, y = (away * cos + down * sin) / width, (down * cos - away * sin) / height
    turn = b[..., 4] - a[..., 4]
    cos, sin = xp.cos(turn) / 2, xp.sin(turn) / 2
    along = (b[..., 2] * cos / width, b[..., 2] * sin / height)
    across = (-b[..., 3] * sin / width, b[..., 3] * cos / height)
    outline = [
        (x + i * along[0] + j * across[0], y + i * along[1] + j * across[1])
        for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    shared = sum(_inside(*outline[i], *outline[(i + 1) % 4], xp) for i in range(4))
    area = (b[..., 2] / width) * (b[..., 3] / height)  # the area of the first is 1
    shared = xp.clip(shared, 0, xp.minimum(area, 1))
    return xp.where(there, shared / (1 + area - shared), 0)


def _inside(x0: Array, y0: Array, x1: Array, y1: Array, xp: Any) -> Array:
    """The integral of clamp(x) d(clamp(y)) along an edge; clamped to -1/2 and 1/2."""
    rise = y1 - y0
    begin, end = xp.clip(y0, -0.5, 0.5), xp.clip(y1, -0.5, 0.5)
    safe = xp.where(rise == 0, 1, rise)
    first, last = x0 + (x1 - x0) * ((begin - y0) / safe), x0 + (x1 - x0) * ((end - y0) / safe)
    # The pieces to the left of the square, inside it and to the right add up to the whole edge.
    way = last - first
    left = xp.minimum(last, -0.5) - xp.minimum(first, -0.5)
    right = xp.maximum(last, 0.5) - xp.maximum(first, 0.5)
    enters, leaves = xp.clip(first, -0.5, 0.5), xp.clip(last, -0.5, 0.5)
    weighted = (right - left + (enters + leaves) * (leaves - enters)) / 2
    mean = xp.where(way == 0, enters, weighted / xp.where(way == 0, 1, way))
    return mean * (end - begin)


def upright_iou(a: Array, b: Array) -> Array:
    """Intersection over union of (left, upper, right, lower) [..., 4] that broadcast: [...]; 0 without area."""
    xp = namespace(a)
    low, high = xp.maximum(a[..., :2], b[..., :2]), xp.minimum(a[..., 2:], b[..., 2:])
    size = xp.maximum(high - low, 0)
    shared = size[..., 0] * size[..., 1]
    union = _upright_area(a) + _upright_area(b) - shared
    return xp.where(union > 0, shared / xp.where(union > 0, union, 1), 0)


def _upright_area(boxes: Array) -> Array:
    xp = namespace(boxes)
    return xp.maximum(boxes[..., 2] - boxes[..., 0], 0) * xp.maximum(boxes[..., 3] - boxes[..., 1], 0)
