"""Interfaces that detection heads share: their truth, their losses and detections, and sparse reads of feature maps."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from scaling.boxes.suppress import rotated_nms
from scaling.models.heads.layers import HeadSizes

SUPPRESSED = 0.1  # overlap with a better detection of the same class above which a detection is suppressed


class Sizes(HeadSizes, Protocol):
    """See `HeadSizes`; adds the patches and the size of an image, and the fields of a `DetectorConfig`."""

    @property
    def patch_size(self) -> int: ...
    @property
    def image_shape(self) -> tuple[int, int]: ...
    @property
    def hidden(self) -> int: ...
    @property
    def anchor_size(self) -> float: ...
    @property
    def proposals(self) -> int: ...
    @property
    def anchor_samples(self) -> int: ...
    @property
    def roi_samples(self) -> int: ...
    @property
    def detections(self) -> int: ...
    @property
    def least_score(self) -> float: ...


class Truth(NamedTuple):
    """The objects of a batch of images; for a single image without the axis B.

    Attributes:
      boxes: float32 [B, M, 5], le90.
      classes: int32 [B, M].
      there: bool [B, M]; the others are padding.
    """

    boxes: jax.Array
    classes: jax.Array
    there: jax.Array


class Part(NamedTuple):
    """One term of the loss: float32 [B], summed over each image, and the number that the sum is divided by."""

    total: jax.Array
    samples: jax.Array


Losses = Mapping[str, Part]


class Found(NamedTuple):
    """Detections, equally many per image, best first; for a single image without the axis B.

    Attributes:
      boxes: float32 [B, N, 5], le90, in pixels.
      scores: float32 [B, N]; all NaN where the network returns NaN or infinity for the image.
      labels: int32 [B, N].
      valid: bool [B, N]; the others are padding.
    """

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array
    valid: jax.Array


def kept(boxes: jax.Array, scores: jax.Array, c: Sizes) -> Found:
    """The detections of an image: every class of every box with a sufficient score, after non-maximum suppression
    within the class.

    boxes: [n, 5]; scores: [n, K], per class.
    """
    count, classes = scores.shape
    flat = scores.reshape(-1)
    labels = jnp.tile(jnp.arange(classes, dtype=jnp.int32), count)
    repeated = jnp.repeat(boxes, classes, axis=0)
    enough = flat > c.least_score
    index, valid = rotated_nms(repeated, flat, SUPPRESSED, c.detections, classes=labels, valid=enough)
    best = jnp.where(valid, flat[index], 0)
    # A score of NaN exceeds nothing and a box of NaN meets nothing: the image would be one without objects.
    finite = jnp.isfinite(flat).all() & jnp.isfinite(boxes).all()
    return Found(repeated[index], jnp.where(finite, best, jnp.nan), labels[index], valid)


def best_of_levels(scores: jax.Array, of_level: Sequence[int], most: int) -> tuple[jax.Array, jax.Array]:
    """Indices and levels, int32, of the `most` best-scoring places of each level.

    scores: [A], level by level; of_level: number of places of each level.
    """
    best, levels, start = [], [], 0
    for level, count in enumerate(of_level):
        index = jax.lax.top_k(scores[start : start + count], min(most, count))[1]
        best.append(index + start)
        levels.append(np.full(len(index), level, np.int32))
        start += count
    return jnp.concatenate(best), jnp.asarray(np.concatenate(levels))


def smooth_l1(x: jax.Array, beta: float) -> jax.Array:
    """A parabola up to beta, then a line of slope 1."""
    size = jnp.abs(x)
    return jnp.where(size < beta, 0.5 * jnp.square(size) / beta, size - 0.5 * beta)


def neighbourhoods(maps: Sequence[jax.Array], places: jax.Array) -> jax.Array:
    """Inputs of a 3 x 3 convolution at selected places: [n, 3, 3, C], zeros beyond the border.

    maps: [h, w, C] each, of one image; places: int32 [n], counted through all maps row by row.
    """
    heights, widths = (np.array([m.shape[i] for m in maps]) for i in (0, 1))
    ends = np.cumsum(heights * widths)
    level = jnp.searchsorted(jnp.asarray(ends), places, side="right")
    start, height, width = (jnp.asarray(x, jnp.int32)[level] for x in (ends - heights * widths, heights, widths))
    row, column = jnp.divmod(places - start, width)
    around = jnp.arange(-1, 2)
    rows, columns = row[:, None, None] + around[:, None], column[:, None, None] + around
    height, width, start = (x[:, None, None] for x in (height, width, start))
    there = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    table = jnp.concatenate([m.reshape(-1, m.shape[-1]) for m in maps])
    read = table[jnp.where(there, start + rows * width + columns, 0)]
    return jnp.where(there[..., None], read, 0)
