import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.boxes.overlap import rotated_iou, upright_iou
from scaling.boxes.suppress import rotated_nms, upright_nms
from tests.boxes.examples import random_boxes

BOXES = np.array([(6, 3, 8, 7, 0.5), (3, 6, 9, 11, 0.6), (3, 7, 10, 12, 0.3), (1, 4, 13, 7, 0.6)], np.float32)
SCORES = np.array([0.7, 0.8, 0.5, 0.9], np.float32)


@functools.partial(jax.jit, static_argnames=("keep", "tile"))
def run(boxes, scores, threshold, classes, valid, keep, tile):
    return rotated_nms(boxes, scores, threshold, keep, classes=classes, valid=valid, tile=tile)


def suppressed(boxes, scores, threshold, classes=(), valid=()) -> list[int]:
    """Suppression in one compiled program for any input, which is filled up with invalid boxes."""
    room = 40
    padded = np.zeros((room, 5), np.float32), np.ones(room, np.float32), np.zeros(room, int)
    there = np.arange(room) < len(scores)
    for array, values in zip((*padded, there), (boxes, scores, classes, valid), strict=True):
        array[: len(values)] = values
    places, ranks, labels = map(jnp.asarray, padded)
    return kept(run(places, ranks, threshold, labels, jnp.asarray(there), room, 16))


def kept(result) -> list[int]:
    indices, valid = map(np.asarray, result)
    assert (indices[~valid] == 0).all()
    assert valid.sum() == valid.argmin() or valid.all()  # results first
    return indices[valid].tolist()


def greedily(overlap, scores, classes, valid, threshold) -> list[int]:
    found: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        if valid[i] and not any(overlap[i, j] > threshold and classes[i] == classes[j] for j in found):
            found.append(i)
    return found


def test_case_of_mmcv():
    """mmcv expects the same with the labels 1, 0, 1, 0, although the box taken away, 2, overlaps one of another."""
    assert suppressed(BOXES, SCORES, 0.5) == [3, 1, 0]
    assert suppressed(BOXES, SCORES, 0.5, classes=[1, 0, 1, 0]) == [3, 1, 0, 2]


@pytest.mark.parametrize(("tile", "keep"), [(256, 300), (7, 33)])
def test_greedy_rule_whatever_the_tile(tile, keep):
    rng = np.random.default_rng(0)
    boxes = random_boxes(300, at=50).astype(np.float32)
    scores = rng.integers(0, 30, 300).astype(np.float32)  # many are equal
    classes, valid = rng.integers(0, 3, 300), rng.random(300) < 0.9
    overlap = np.asarray(rotated_iou(jnp.asarray(boxes)[:, None], jnp.asarray(boxes)[None]))
    expected = greedily(overlap, scores, classes, valid, 0.2)
    assert 20 < len(expected) < 200
    found = run(*map(jnp.asarray, (boxes, scores, 0.2, classes, valid)), keep, tile)
    assert kept(found) == expected[:keep]
    assert found[0].shape == found[1].shape == (keep,)


def test_upright_boxes_and_batches():
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 60, (2, 80, 2))
    boxes = np.concatenate((low, low + rng.uniform(5, 40, (2, 80, 2))), -1).astype(np.float32)
    scores = rng.random((2, 80)).astype(np.float32)
    batch = jax.jit(jax.vmap(lambda b, s: upright_nms(b, s, 0.3, 50, tile=32)))
    indices, valid = batch(jnp.asarray(boxes), jnp.asarray(scores))
    for i in range(2):
        overlap = upright_iou(boxes[i][:, None], boxes[i][None])
        expected = greedily(overlap, scores[i], np.zeros(80), np.ones(80, bool), 0.3)
        assert kept((indices[i], valid[i])) == expected[:50]


def test_an_overlap_of_the_threshold_is_kept():
    boxes = [[0.0, 0, 4, 2, 0], [0, 0.5, 4, 1, 0]]  # one half, exactly
    assert suppressed(boxes, [0.9, 0.8], 0.5) == [0, 1]
    assert suppressed(boxes, [0.9, 0.8], 0.49) == [0]


def test_a_chain_keeps_every_other_box():
    """Each overlaps the next, which takes as many rounds as there are boxes."""
    boxes = np.array([[i * 5.0, 0, 10, 10, 0] for i in range(40)])
    assert suppressed(boxes, np.arange(40, 0, -1.0), 0.3) == list(range(0, 40, 2))


def test_what_is_not_a_number_is_neither_kept_nor_takes_away():
    boxes = np.stack([BOXES[0]] * 3)
    boxes[0, 2] = np.nan
    assert suppressed(boxes, [0.9, np.nan, 0.5], 0.5) == [2]
    assert suppressed(boxes, np.ones(3), 0.5, valid=[False] * 3) == []
    assert kept(rotated_nms(jnp.zeros((0, 5)), jnp.zeros(0), 0.5, 3)) == []
