"""The first stage of Oriented R-CNN: objectness of anchors, and the oriented boxes that they become.

As mmrotate's oriented_rpn_head.py (Xie et al., 2108.05699). Gradients flow only through sampled anchors: 256 of an
image's hundreds of thousands. The convolutions are computed everywhere for the proposals, without gradients, and once
more at the sampled places.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scaling import axes
from scaling.boxes.anchors import anchors, inside
from scaling.boxes.assign import NEGATIVE, Sample, Thresholds, assign, sample
from scaling.boxes.coders import from_midpoint_offset, midpoint_offset
from scaling.boxes.convert import corners, hulls
from scaling.boxes.overlap import upright_iou
from scaling.boxes.suppress import upright_nms
from scaling.models.heads.detection import Losses, Part, Sizes, Truth, best_of_levels, neighbourhoods, smooth_l1
from scaling.models.heads.layers import Head, Layer, Layers, applied
from scaling.models.heads.simple_pyramid import level_shapes, level_strides
from scaling.models.ops import dense, wide

LEVELS = (0, 1, 2, 3, 4)
SCALES, RATIOS = (8.0,), (0.5, 1.0, 2.0)
OFFSETS = 6
ASSIGNED = Thresholds(negative=0.3, positive=0.7, lowest=0.3)
POSITIVE = 0.5  # largest share of positive anchors in a sample
SUPPRESSED = 0.8
BETA = 1 / 9
_DEVIATION = 0.01


class Grid(NamedTuple):
    """The anchors of an image, float32 [A, 4]; whether each is wholly inside it, bool [A]; and the number on each
    level.
    """

    anchors: np.ndarray
    inside: np.ndarray
    of_level: tuple[int, ...]


def grid(c: Sizes) -> Grid:
    shapes = [level_shapes(c.grid)[level] for level in LEVELS]
    strides = [level_strides(c.patch_size)[level] for level in LEVELS]
    found = anchors(shapes, strides, [c.anchor_size * scale for scale in SCALES], RATIOS)
    return Grid(found, inside(found, c.image_shape), tuple(h * w * len(RATIOS) for h, w in shapes))


def reached(c: Sizes, boxes: np.ndarray) -> np.ndarray:
    """Whether each of some boxes [n, 5] overlaps an anchor in the same middle enough to take it, bool [n]."""
    every = grid(c)
    kinds = np.unique(_centred(every.anchors[every.inside]).round(3), axis=0)
    assert ASSIGNED.lowest is not None
    overlap = upright_iou(_centred(hulls(corners(boxes)))[:, None], kinds[None])
    return np.asarray((overlap >= ASSIGNED.lowest).any(1))


def _centred(outlines: np.ndarray) -> np.ndarray:
    """Upright boxes [n, 4] moved to one middle."""
    half = (outlines[:, 2:] - outlines[:, :2]) / 2
    return np.concatenate([-half, half], axis=1)


def rpn_layers(c: Sizes) -> Layers:
    places = sum(grid(c).of_level) // len(RATIOS)
    own: Any = {"places": places, "bias": True, "deviation": _DEVIATION}
    return {
        "rpn": Layer(c.channels, c.channels, size=3, **own),
        "rpn_objects": Layer(c.channels, len(RATIOS), **own),
        "rpn_offsets": Layer(c.channels, OFFSETS * len(RATIOS), **own),
    }


def everywhere(p: Head, maps: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Logits [B, A] and offsets [B, A, 6] of all anchors, float32."""
    logits, offsets = [], []
    for x in maps:
        hidden = wide(jax.nn.relu(applied(p, "rpn", x)))
        logits.append(applied(p, "rpn_objects", hidden).reshape(len(x), -1))
        offsets.append(applied(p, "rpn_offsets", hidden).reshape(len(x), -1, OFFSETS))
    return jnp.concatenate(logits, axis=1), jnp.concatenate(offsets, axis=1)


def at(p: Head, maps: Sequence[jax.Array], index: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`everywhere` at selected anchors: [B, n] -> [B, n], [B, n, 6]."""
    kinds = len(RATIOS)
    read = axes.per_image(neighbourhoods, tuple(maps), index // kinds)
    kernel, bias = (p["rpn"][name].astype(read.dtype) for name in ("kernel", "bias"))
    hidden = wide(jax.nn.relu(dense(read, kernel, bias)))
    ratio = (index % kinds)[..., None]
    logits = jnp.take_along_axis(applied(p, "rpn_objects", hidden), ratio, axis=-1)[..., 0]
    offsets = applied(p, "rpn_offsets", hidden).reshape(*index.shape, kinds, OFFSETS)
    return logits, jnp.take_along_axis(offsets, ratio[..., None], axis=-2)[..., 0, :]


def drawn(c: Sizes, truth: Truth, keys: jax.Array) -> tuple[Sample, jax.Array]:
    """The sampled anchors [B, n] of a step, and their offsets to the assigned objects [B, n, 6].

    keys: [B, ...], key data of each image.
    """
    found = grid(c)
    everything, usable = jnp.asarray(found.anchors), jnp.asarray(found.inside)

    def of_image(truth: Truth, key: jax.Array) -> tuple[Sample, jax.Array]:
        outlines = hulls(corners(truth.boxes))
        which = assign(everything, outlines, truth.there, usable, upright_iou, ASSIGNED)
        most = int(c.anchor_samples * POSITIVE)
        taken = sample(jax.random.wrap_key_data(key), which >= 0, which == NEGATIVE, c.anchor_samples, most)
        objects = truth.boxes[jnp.maximum(which[taken.numbers], 0)]
        offsets = midpoint_offset(everything[taken.numbers], objects)
        return taken, jnp.where(taken.positive[:, None], offsets, 0)

    result: tuple[Sample, jax.Array] = axes.per_image(of_image, truth, keys)
    return result


def rpn_losses(p: Head, c: Sizes, maps: Sequence[jax.Array], truth: Truth, keys: jax.Array) -> Losses:
    """Cross-entropy of the anchors that are drawn, smooth L1 of the offsets of the positive ones."""
    taken, targets = drawn(c, truth, keys)
    logits, offsets = at(p, maps, taken.numbers)
    entropy = optax.sigmoid_binary_cross_entropy(logits, taken.positive.astype(logits.dtype))
    apart = smooth_l1(offsets - targets, BETA).sum(-1)
    count = taken.drawn.sum(1)
    return {
        "rpn_objects": Part(jnp.where(taken.drawn, entropy, 0).sum(1), count),
        "rpn_boxes": Part(jnp.where(taken.positive, apart, 0).sum(1), count),
    }


def proposals(c: Sizes, logits: jax.Array, offsets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The best oriented boxes of every image, [B, n, 5], and which of them are valid, bool [B, n].

    Each level contributes up to n candidates. Candidates whose hull overlaps that of a better one on their level by
    more than 0.8 are dropped.
    """
    found = grid(c)
    everything = jnp.asarray(found.anchors)

    def of_image(logits: jax.Array, offsets: jax.Array) -> tuple[jax.Array, jax.Array]:
        index, of_level = best_of_levels(logits, found.of_level, c.proposals)
        boxes = from_midpoint_offset(everything[index], offsets[index])
        kept, there = upright_nms(hulls(corners(boxes)), logits[index], SUPPRESSED, c.proposals, classes=of_level)
        return boxes[kept], there

    result: tuple[jax.Array, jax.Array] = axes.per_image(of_image, logits, offsets)
    return result
