"""Rotated RoIAlign: the features inside of oriented boxes, resampled to a small grid of one size.

As mmcv's roi_align_rotated (aligned, clockwise, a fixed number of samples): every cell of the grid is the mean of
samples x samples points, each read bilinearly; a point farther than one pixel outside of the map reads 0, one nearer
reads the border. The maps of all levels are one table of rows, so that a box needs no list of its level.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def pyramid_levels(boxes: jax.Array, levels: int, finest: float = 56.0) -> jax.Array:
    """Which map each box [..., 5] is read from, int32: the first up to twice `finest` pixels of sqrt(w h), one more for
    every doubling beyond, at most the last (mmdetection's SingleRoIExtractor).
    """
    size = jnp.sqrt(boxes[..., 2] * boxes[..., 3])
    return jnp.clip(jnp.floor(jnp.log2(size / finest + 1e-6)), 0, levels - 1).astype(jnp.int32)


def rotated_roi_align(
    maps: Sequence[jax.Array],
    strides: Sequence[float],
    boxes: jax.Array,
    levels: jax.Array,
    size: int = 7,
    samples: int = 2,
) -> jax.Array:
    """Features [n, size, size, channels] of boxes of one image.

    Args:
      maps: [h, w, channels] each, of one image.
      strides: pixels between two columns of each map.
      boxes: [n, 5] in pixels of the image; rows of the grid lie along the side w.
      levels: int32 [n], the map that each box is read from.
      size: cells of the grid along each side.
      samples: points of a cell along each side.
    """
    table = jnp.concatenate([m.reshape(-1, m.shape[-1]) for m in maps])
    shapes = [m.shape[:2] for m in maps]
    starts = [sum(h * w for h, w in shapes[:i]) for i in range(len(shapes))]
    height, width, start = (
        jnp.asarray(values, jnp.int32)[levels][:, None, None]
        for values in ([h for h, _ in shapes], [w for _, w in shapes], starts)
    )
    x, y = _points(boxes, 1 / jnp.asarray(strides, jnp.float32)[levels], size * samples)
    there = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    (top, bottom, down), (left, right, over) = _neighbours(y, height), _neighbours(x, width)
    read = jnp.zeros((*x.shape, table.shape[-1]), table.dtype)
    for row, of_row in ((top, 1 - down), (bottom, down)):
        for column, of_column in ((left, 1 - over), (right, over)):
            weight = jnp.where(there, of_row * of_column, 0).astype(table.dtype)
            read += weight[..., None] * table[start + row * width + column]
    return read.reshape(len(boxes), size, samples, size, samples, -1).mean((2, 4))


def _points(boxes: jax.Array, scale: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Where to read, in pixels of the map from the middle of the first: x and y [n, count, count]."""
    cx, cy, w, h, angle = (part[:, None, None] for part in jnp.moveaxis(boxes, -1, 0))
    scale = scale[:, None, None]
    steps = (jnp.arange(count) + 0.5) / count - 0.5
    along, across = steps * w * scale, steps[:, None] * h * scale
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x = along * cos - across * sin + cx * scale - 0.5
    return x, along * sin + across * cos + cy * scale - 0.5


def _neighbours(place: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The pixels before and behind a place, and how far it is from the first to the second."""
    place = jnp.clip(place, 0, length - 1)
    before = jnp.floor(place).astype(jnp.int32)
    return before, jnp.minimum(before + 1, length - 1), place - before
