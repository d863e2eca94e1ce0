"""Rotated RoIAlign: the features inside of oriented boxes, resampled to a small grid of one size.

As mmcv's roi_align_rotated (aligned, clockwise, a fixed number of samples): every cell of the grid is the mean of
samples x samples points, each read bilinearly; a point more than one pixel outside the map reads 0, a nearer one reads
the border. The maps of all levels form one table of rows, so boxes need not be grouped by level.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

_TOGETHER = 16  # boxes processed together in the backward pass


def pyramid_levels(boxes: jax.Array, levels: int, finest: float = 56.0) -> jax.Array:
    """The map that each box [..., 5] is read from, int32: the first up to sqrt(w h) of twice `finest` pixels, the
    next one for every further doubling, at most the last (mmdetection's SingleRoIExtractor).
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
    """Features [n, size, size, channels] of boxes of one image. Gradients reach the maps, not the boxes, as in mmcv.

    Args:
      maps: maps of one image, [h, w, channels] each.
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
    rows, weights = [], []
    for row, of_row in ((top, 1 - down), (bottom, down)):
        for column, of_column in ((left, 1 - over), (right, over)):
            rows.append(_cells(start + row * width + column, samples))
            weights.append(_cells(jnp.where(there, of_row * of_column, 0) / samples**2, samples))
    return _weighted(table, jnp.concatenate(rows, -1), jnp.concatenate(weights, -1))


def _cells(points: jax.Array, samples: int) -> jax.Array:
    """[n, size * samples, size * samples] -> [n, size, size, samples * samples]."""
    steps = range(samples)
    return jnp.stack([points[:, i::samples, j::samples] for i in steps for j in steps], axis=-1)


@jax.custom_vjp
def _weighted(table: jax.Array, rows: jax.Array, weights: jax.Array) -> jax.Array:
    """Sums of rows of a table [m, c], by their indices and weights [n, s, s, k]: [n, s, s, c]. Summed in float32.

    The k terms are added one by one, so that no array of all of them is made: on CPUs 20 times as fast.
    """
    total = jnp.zeros((*rows.shape[:-1], table.shape[-1]), jnp.float32)
    for i in range(rows.shape[-1]):
        total += weights[..., i, None] * table[rows[..., i]]
    return total.astype(table.dtype)


def _forward(table: jax.Array, rows: jax.Array, weights: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    return _weighted(table, rows, weights), (table, rows, weights)


def _backward(kept: tuple[jax.Array, ...], slope: jax.Array) -> tuple[jax.Array, None, jax.Array]:
    """Gradient of the table only, a few boxes at a time; accumulated in float32."""
    table, rows, weights = kept

    def read(table: jax.Array) -> jax.Array:
        def of_box(box: tuple[jax.Array, jax.Array]) -> jax.Array:
            return jnp.einsum("xyk,xykc->xyc", box[1], table[box[0]])

        found: jax.Array = jax.lax.map(of_box, (rows, weights), batch_size=_TOGETHER)
        return found

    (back,) = jax.linear_transpose(read, jax.ShapeDtypeStruct(table.shape, jnp.float32))(slope.astype(jnp.float32))
    return back.astype(table.dtype), None, jnp.zeros_like(weights)


_weighted.defvjp(_forward, _backward)


def _points(boxes: jax.Array, scale: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Sampling points, in pixels of the map relative to the middle of the first one: x and y [n, count, count]."""
    cx, cy, w, h, angle = (part[:, None, None] for part in jnp.moveaxis(boxes, -1, 0))
    scale = scale[:, None, None]
    steps = (jnp.arange(count) + 0.5) / count - 0.5
    along, across = steps * w * scale, steps[:, None] * h * scale
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x = along * cos - across * sin + cx * scale - 0.5
    return x, along * sin + across * cos + cy * scale - 0.5


def _neighbours(place: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The pixels before and after a coordinate, and its fractional distance from the first."""
    place = jnp.clip(place, 0, length - 1)
    before = jnp.floor(place).astype(jnp.int32)
    return before, jnp.minimum(before + 1, length - 1), place - before
