"""Anchors: the upright boxes that a detector starts from, as many at every place of every level of a pyramid."""

from collections.abc import Sequence

import numpy as np

Shape = tuple[int, int]


def anchors(
    shapes: Sequence[Shape], strides: Sequence[float], scales: Sequence[float], ratios: Sequence[float]
) -> np.ndarray:
    """The anchors of all levels, level by level and row by row: float32 [sum of rows * columns * k, 4] of (left, upper,
    right, lower) in pixels of the image.

    As mmdetection's AnchorGenerator: the middles are at (column * stride, row * stride), without a shift by half a
    cell, and among the k = len(ratios) * len(scales) anchors of a place the scale varies fastest.

    Args:
      shapes: rows and columns of each level.
      strides: pixels between two columns of each level.
      scales: sides of a square anchor, in strides.
      ratios: height over width, at constant area.
    """
    return np.concatenate([_level(*each, scales, ratios) for each in zip(shapes, strides, strict=True)])


def _level(shape: Shape, stride: float, scales: Sequence[float], ratios: Sequence[float]) -> np.ndarray:
    root = np.sqrt(np.asarray(ratios, np.float64))[:, None]
    sides = np.asarray(scales, np.float64) * stride
    half = np.stack(((sides / root).ravel(), (sides * root).ravel()), axis=-1) / 2  # [k, 2]
    y, x = np.meshgrid(np.arange(shape[0]) * stride, np.arange(shape[1]) * stride, indexing="ij")
    middle = np.stack((x, y), axis=-1).reshape(-1, 1, 2)
    return np.concatenate((middle - half, middle + half), axis=-1).reshape(-1, 4).astype(np.float32)


def inside(upright: np.ndarray, size: Shape) -> np.ndarray:
    """Whether boxes (left, upper, right, lower) [n, 4] are wholly inside an image of this height and width, bool
    [n].
    """
    height, width = size
    low, high = upright[:, :2], upright[:, 2:]
    return np.asarray((low >= 0).all(1) & (high < (width, height)).all(1))
