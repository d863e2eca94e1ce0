"""Rotated RetinaNet: classifies and refines every anchor at once, without a second stage (Lin et al., 1708.02002).

As mmrotate's rotated_retina_head.py in le90: two towers of four convolutions, nine upright anchors per place, the focal
loss over all of them and L1 on positive ones, both divided by the number of positive anchors.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scaling import axes
from scaling.boxes.anchors import anchors
from scaling.boxes.assign import NEGATIVE, Thresholds, assign
from scaling.boxes.coders import from_rotated_delta, rotated_delta
from scaling.boxes.overlap import rotated_iou
from scaling.models.heads.detection import Found, Losses, Part, Sizes, Truth, best_of_levels, kept
from scaling.models.heads.layers import Head, Layer, Layers, applied
from scaling.models.heads.simple_pyramid import level_shapes, level_strides
from scaling.models.ops import wide

LEVELS = (1, 2, 3, 4, 5)
SCALES, RATIOS = tuple(4 * 2 ** (i / 3) for i in range(3)), (1.0, 0.5, 2.0)
KINDS = len(SCALES) * len(RATIOS)
DEPTH = 4  # convolutions per tower
DELTAS = 5
STDS = (1.0,) * DELTAS
ASSIGNED = Thresholds(negative=0.4, positive=0.5, lowest=0.0)
ALPHA, GAMMA = 0.25, 2.0
PRIOR = 0.01  # initial probability of an object at any anchor
_DEVIATION = 0.01


class Grid(NamedTuple):
    """The anchors of an image as boxes with angle 0, float32 [A, 5], and the number on each level."""

    anchors: np.ndarray
    of_level: tuple[int, ...]


def grid(c: Sizes) -> Grid:
    shapes = [level_shapes(c.grid)[level] for level in LEVELS]
    strides, scales = level_strides(c.patch_size), [c.anchor_size * scale for scale in SCALES]
    upright = anchors(shapes, [strides[level] for level in LEVELS], scales, RATIOS)
    low, high = upright[:, :2], upright[:, 2:]
    boxes = np.concatenate(((low + high) / 2, high - low, np.zeros_like(low[:, :1])), axis=1)
    return Grid(boxes, tuple(h * w * KINDS for h, w in shapes))


def reached(c: Sizes, boxes: np.ndarray) -> np.ndarray:
    """Every object takes the anchor that it overlaps most, bool [n]."""
    return np.ones(len(boxes), bool)


def rotated_retinanet_layers(c: Sizes) -> Layers:
    """Layers after the pyramid."""
    own: Any = {"places": sum(grid(c).of_level) // KINDS, "size": 3, "bias": True, "deviation": _DEVIATION}
    layers: Layers = {}
    for tower in ("classes", "deltas"):
        layers |= {f"{tower}_{i}": Layer(c.channels, c.channels, **own) for i in range(DEPTH)}
    start = -math.log((1 - PRIOR) / PRIOR)
    layers["classes"] = Layer(c.channels, c.classes * KINDS, bias_start=start, **own)
    layers["deltas"] = Layer(c.channels, DELTAS * KINDS, **own)
    return layers


def told(p: Head, c: Sizes, maps: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Logits [B, A, K] and deltas [B, A, 5] of all anchors, float32."""
    found: dict[str, list[jax.Array]] = {"classes": [], "deltas": []}
    for x in maps:
        for tower, parts in found.items():
            hidden = x
            for i in range(DEPTH):
                hidden = jax.nn.relu(applied(p, f"{tower}_{i}", hidden))
            outputs = c.classes if tower == "classes" else DELTAS
            parts.append(applied(p, tower, wide(hidden)).reshape(len(x), -1, outputs))
    return jnp.concatenate(found["classes"], axis=1), jnp.concatenate(found["deltas"], axis=1)


def focal_loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Focal loss of every logit; `targets` is whether its class is present."""
    there = jax.nn.sigmoid(logits)
    wrong = jnp.where(targets, 1 - there, there)
    weight = jnp.where(targets, ALPHA, 1 - ALPHA)
    return weight * wrong**GAMMA * optax.sigmoid_binary_cross_entropy(logits, targets.astype(logits.dtype))


def rotated_retinanet_losses(p: Head, c: Sizes, maps: Sequence[jax.Array], truth: Truth, keys: jax.Array) -> Losses:
    """Losses over all anchors of every image; nothing is sampled."""
    logits, deltas = told(p, c, maps)
    everything = jnp.asarray(grid(c).anchors)

    def of_image(truth: Truth) -> tuple[jax.Array, jax.Array, jax.Array]:
        usable = jnp.ones(len(everything), bool)
        which = assign(everything, truth.boxes, truth.there, usable, rotated_iou, ASSIGNED)
        number = jnp.maximum(which, 0)
        return which, truth.classes[number], rotated_delta(everything, truth.boxes[number], STDS)

    which, classes, targets = axes.per_image(of_image, truth)
    positive, counts = which >= 0, (which >= 0) | (which == NEGATIVE)
    there = positive[..., None] & (classes[..., None] == jnp.arange(c.classes))
    entropy = jnp.where(counts[..., None], focal_loss(logits, there), 0)
    apart = jnp.where(positive[..., None], jnp.abs(deltas - jnp.where(positive[..., None], targets, 0)), 0)
    samples = positive.sum(1)
    return {"classes": Part(entropy.sum((1, 2)), samples), "boxes": Part(apart.sum((1, 2)), samples)}


def rotated_retinanet_found(p: Head, c: Sizes, maps: Sequence[jax.Array]) -> Found:
    """The detections of every image, from the best-scoring anchors of each level."""
    found = grid(c)
    everything = jnp.asarray(found.anchors)

    def of_image(logits: jax.Array, deltas: jax.Array) -> Found:
        index, _ = best_of_levels(logits.max(-1), found.of_level, c.proposals)
        boxes = from_rotated_delta(everything[index], deltas[index], c.image_shape, STDS)
        return kept(boxes, jax.nn.sigmoid(logits[index]), c)

    result: Found = axes.per_image(of_image, *told(p, c, maps))
    return result
