"""Rotated RetinaNet does what mmrotate's code does, here in plain numpy."""

import dataclasses
import functools

import jax
import numpy as np
from scipy.special import expit

from scaling.boxes.assign import NEGATIVE
from scaling.boxes.coders import from_rotated_delta, rotated_delta
from scaling.boxes.overlap import rotated_iou
from scaling.models.detector import init_head
from scaling.models.heads import rotated_retinanet
from scaling.models.heads.simple_pyramid import level_shapes
from tests.models.heads.detection_examples import CONFIG, IMAGES, greedy, maps, truth, weights

C = dataclasses.replace(CONFIG, head="rotated_retinanet", image_size=32, least_score=0.3)
P, MAPS, TRUTH = weights(C), maps(C), truth(C)
GRID = rotated_retinanet.grid(C)


@functools.cache
def run():
    def everything(p, maps, truth):
        told = rotated_retinanet.told(p, C, maps)
        losses = rotated_retinanet.rotated_retinanet_losses(p, C, maps, truth, None)
        return told, losses, rotated_retinanet.rotated_retinanet_found(p, C, maps)

    return jax.device_get(jax.jit(everything)(P, MAPS, TRUTH))


def assigned(objects):
    """max_iou_assigner.py on rotated boxes, one object after the other."""
    overlaps = np.asarray(rotated_iou(objects[:, None], GRID.anchors[None]))
    most, which = overlaps.max(0), overlaps.argmax(0)
    result = np.where(most < 0.4, NEGATIVE, np.where(most >= 0.5, which, -2))
    for number, row in enumerate(overlaps):
        if row.max() > 0:
            result[row == row.max()] = number
    return result


def test_nine_upright_anchors_a_place():
    places = [h * w for h, w in level_shapes(C.grid)[1:]]
    assert GRID.of_level == tuple(9 * count for count in places)
    first = GRID.anchors[:9]
    np.testing.assert_allclose(first[:3, 2], [16, 16 * 2 ** (1 / 3), 16 * 2 ** (2 / 3)], rtol=1e-6)  # stride 4
    np.testing.assert_allclose(first[[0, 3, 6], 3] / first[[0, 3, 6], 2], [1, 0.5, 2], rtol=1e-6)
    assert not GRID.anchors[:, 4].any()
    half = rotated_retinanet.grid(dataclasses.replace(C, anchor_size=0.5)).anchors
    np.testing.assert_allclose(half[:, 2:4], GRID.anchors[:, 2:4] / 2, rtol=1e-6)
    np.testing.assert_allclose(half[:, :2], GRID.anchors[:, :2], atol=1e-4)


def test_the_losses_are_of_all_anchors_that_count_and_divided_by_those_of_objects():
    (logits, deltas), parts, _ = run()
    for i in range(IMAGES):
        objects, classes = TRUTH.boxes[i][TRUTH.there[i]], TRUTH.classes[i][TRUTH.there[i]]
        which = assigned(objects) if len(objects) else np.full(len(GRID.anchors), NEGATIVE)
        entropy = apart = 0.0
        for at in np.flatnonzero(which != -2):
            for k in range(C.classes):
                there = which[at] >= 0 and classes[which[at]] == k
                q = expit(float(logits[i, at, k]) if there else -float(logits[i, at, k]))
                entropy -= (0.25 if there else 0.75) * (1 - q) ** 2 * np.log(q)
        for at in np.flatnonzero(which >= 0):
            target = rotated_delta(GRID.anchors[at], objects[which[at]], (1,) * 5)
            apart += np.abs(deltas[i, at] - target).sum()
        np.testing.assert_allclose(parts["classes"].total[i], entropy, rtol=1e-4)
        np.testing.assert_allclose(parts["boxes"].total[i], apart, rtol=1e-3)
        assert {name: part.samples[i] for name, part in parts.items()} == dict.fromkeys(parts, (which >= 0).sum())
    assert parts["boxes"].samples[0] > 4
    assert parts["boxes"].samples[1] == 0


def test_detections_are_of_the_best_anchors_of_every_level():
    (logits, deltas), _, found = run()
    c = C
    for i in range(IMAGES):
        chosen, start = [], 0
        for count in GRID.of_level:
            best = logits[i, start : start + count].max(-1)
            chosen += (start + np.argsort(-best, kind="stable")[: c.proposals]).tolist()
            start += count
        boxes = np.asarray(from_rotated_delta(GRID.anchors[chosen], deltas[i][chosen], (32, 32), (1,) * 5))
        scores, expected = expit(logits[i][chosen]), []
        for label in range(c.classes):
            enough = np.flatnonzero(scores[:, label] > 0.3)
            kept = greedy(boxes[enough], scores[enough, label], 0.1, rotated_iou, 1000)
            expected += [(scores[at, label], label) for at in enough[kept]]
        expected = sorted(expected, key=lambda row: -row[0])[: c.detections]
        there = found.valid[i]
        np.testing.assert_allclose(found.scores[i][there], [row[0] for row in expected], rtol=1e-4)
        np.testing.assert_array_equal(found.labels[i][there], [row[1] for row in expected])


def test_it_begins_with_almost_no_objects():
    p = jax.jit(lambda: init_head(C, 0))()
    (logits, _), (first, *_) = jax.jit(lambda p: (rotated_retinanet.told(p, C, MAPS), [p["classes"]["bias"]]))(p)
    np.testing.assert_allclose(expit(np.asarray(first)), 0.01, rtol=1e-5)
    assert expit(np.asarray(logits)).mean() < 0.02
