"""Oriented R-CNN (Xie et al., 2108.05699): proposals, pooled features, and their classification and refinement.

As mmrotate's oriented_standard_roi_head.py and rotate_bbox_head.py: a rotated RoIAlign of 7 x 7 cells, two fully
connected layers shared by both outputs, class-agnostic boxes. The last class is the background.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from scaling import axes
from scaling.boxes.align import pyramid_levels, rotated_roi_align
from scaling.boxes.assign import NEGATIVE, Sample, Thresholds, assign, sample
from scaling.boxes.coders import from_rotated_delta, rotated_delta
from scaling.boxes.overlap import rotated_iou
from scaling.models.heads.detection import Found, Losses, Part, Sizes, Truth, kept, smooth_l1
from scaling.models.heads.layers import Head, Layer, Layers, applied
from scaling.models.heads.oriented_rpn import LEVELS, everywhere, proposals, rpn_layers, rpn_losses
from scaling.models.heads.simple_pyramid import level_strides
from scaling.models.ops import dense, wide

CELLS = 7
DELTAS = 5
ASSIGNED = Thresholds(negative=0.5, positive=0.5)
POSITIVE = 0.25  # largest share of positive boxes in a sample
READ = 4  # levels of the pyramid that are pooled
FINEST = 14.0  # strides of the finest level: boxes with sides up to twice this are read from it (56 for 4 pixels)
BETA = 1.0


def oriented_rcnn_layers(c: Sizes) -> Layers:
    """Layers after the pyramid. Uses of the second stage are counted as in training."""
    own: Any = {"places": c.roi_samples, "bias": True}
    return rpn_layers(c) | {
        "box_first": Layer(c.channels, c.hidden, size=CELLS, deviation=_xavier(c.channels * CELLS**2, c.hidden), **own),
        "box_second": Layer(c.hidden, c.hidden, deviation=_xavier(c.hidden, c.hidden), **own),
        "classes": Layer(c.hidden, c.classes + 1, to_classes=True, deviation=0.01, **own),
        "deltas": Layer(c.hidden, DELTAS, deviation=0.001, **own),
    }


def _xavier(inputs: int, outputs: int) -> float:
    return math.sqrt(2 / (inputs + outputs))


class Rois(NamedTuple):
    """Samples for the second stage: drawn boxes [B, n, 5], the class of each [B, n], background included, and the
    deltas to their objects [B, n, 5].
    """

    sample: Sample
    boxes: jax.Array
    classes: jax.Array
    deltas: jax.Array


def drawn(c: Sizes, boxes: jax.Array, valid: jax.Array, truth: Truth, keys: jax.Array) -> Rois:
    """Samples from proposals [B, P, 5] and the objects themselves, which precede them."""

    def of_image(boxes: jax.Array, valid: jax.Array, truth: Truth, key: jax.Array) -> Rois:
        boxes = jnp.concatenate((truth.boxes, boxes))
        valid = jnp.concatenate((truth.there, valid))
        which = assign(boxes, truth.boxes, truth.there, valid, rotated_iou, ASSIGNED)
        most = int(c.roi_samples * POSITIVE)
        taken = sample(jax.random.wrap_key_data(key), which >= 0, which == NEGATIVE, c.roi_samples, most)
        # Boxes that are not drawn become an upright box in the corner: finite, with weight 0.
        rois = jnp.where(taken.drawn[:, None], boxes[taken.numbers], jnp.array([8.0, 8.0, 8.0, 8.0, 0.0]))
        number = jnp.maximum(which[taken.numbers], 0)
        classes = jnp.where(taken.positive, truth.classes[number], c.classes)
        deltas = rotated_delta(rois, truth.boxes[number])
        return Rois(taken, rois, classes, jnp.where(taken.positive[:, None], deltas, 0))

    result: Rois = axes.per_image(of_image, boxes, valid, truth, keys)
    return result


def told(p: Head, c: Sizes, maps: Sequence[jax.Array], boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits [B, n, K + 1] and deltas [B, n, 5] of boxes [B, n, 5], float32."""
    strides = [level_strides(c.patch_size)[level] for level in LEVELS[:READ]]

    def of_image(maps: tuple[jax.Array, ...], boxes: jax.Array) -> jax.Array:
        return rotated_roi_align(maps, strides, boxes, pyramid_levels(boxes, READ, FINEST * strides[0]), CELLS)

    x = axes.per_image(of_image, tuple(maps[:READ]), boxes)
    first, second = p["box_first"], p["box_second"]
    x = jax.nn.relu(dense(x, first["kernel"].astype(x.dtype), first["bias"].astype(x.dtype)))
    x = jax.nn.relu(dense(x, second["kernel"][0, 0].astype(x.dtype), second["bias"].astype(x.dtype)))
    x = wide(x)
    return applied(p, "classes", x), applied(p, "deltas", x)


def oriented_rcnn_losses(p: Head, c: Sizes, maps: Sequence[jax.Array], truth: Truth, keys: jax.Array) -> Losses:
    """Losses of both stages. keys: [B, 2, ...], key data of each image, one for each stage."""
    still = jax.lax.stop_gradient((p, list(maps)))
    rois = drawn(c, *proposals(c, *everywhere(*still)), truth, keys[:, 1])
    logits, deltas = told(p, c, maps, rois.boxes)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, rois.classes)
    apart = smooth_l1(deltas - rois.deltas, BETA).sum(-1)
    count = rois.sample.drawn.sum(1)
    return {
        **rpn_losses(p, c, maps, truth, keys[:, 0]),
        "classes": Part(jnp.where(rois.sample.drawn, entropy, 0).sum(1), count),
        "boxes": Part(jnp.where(rois.sample.positive, apart, 0).sum(1), count),
    }


def oriented_rcnn_found(p: Head, c: Sizes, maps: Sequence[jax.Array]) -> Found:
    """The detections of every image."""
    boxes, valid = proposals(c, *everywhere(p, maps))
    logits, deltas = told(p, c, maps, boxes)

    def of_image(boxes: jax.Array, valid: jax.Array, logits: jax.Array, deltas: jax.Array) -> Found:
        scores = jnp.where(valid[:, None], jax.nn.softmax(logits)[:, :-1], 0)
        return kept(from_rotated_delta(boxes, deltas, c.image_shape), scores, c)

    result: Found = axes.per_image(of_image, boxes, valid, logits, deltas)
    return result
