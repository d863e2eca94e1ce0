"""Boxes are assigned objects as by mmdetection's MaxIoUAssigner, and a step samples some of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.boxes.assign import IGNORED, NEGATIVE, Thresholds, assign, sample
from scaling.boxes.overlap import upright_iou

RPN, RETINA, ROI = Thresholds(0.3, 0.7, 0.3), Thresholds(0.4, 0.5, 0.0), Thresholds(0.5, 0.5)

found = jax.jit(functools.partial(assign, overlap=upright_iou), static_argnames="by")


def uprights(count, seed, size=40.0):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (count, 2))
    return np.concatenate((low, low + rng.uniform(4, size, (count, 2))), axis=1).astype(np.float32)


def as_published(boxes, objects, by):
    """max_iou_assigner.py, read aloud: one object after the other."""
    result = np.full(len(boxes), IGNORED)
    if not len(objects):
        return np.full(len(boxes), NEGATIVE)
    overlaps = np.asarray(upright_iou(objects[:, None], boxes[None]))
    most, which = overlaps.max(0), overlaps.argmax(0)
    result[most < by.negative] = NEGATIVE
    result[most >= by.positive] = which[most >= by.positive]
    if by.lowest is not None:
        for number, row in enumerate(overlaps):
            if row.max() >= by.lowest and row.max() > 0:
                result[row == row.max()] = number
    return result


@pytest.mark.parametrize("by", [RPN, RETINA, ROI], ids=["proposals", "retinanet", "regions"])
def test_as_the_published_loop(by):
    kinds = set()
    for seed in range(20):
        objects, boxes = uprights(19, seed), uprights(300, seed + 100)
        count = seed % 19  # none at first
        there = np.arange(19) < count
        which = np.asarray(found(boxes, objects, there, np.ones(300, bool), by=by))
        np.testing.assert_array_equal(which, as_published(boxes, objects[:count], by))
        kinds |= set(np.minimum(which, 0).tolist())
    assert kinds == ({IGNORED, NEGATIVE, 0} if by is not ROI else {NEGATIVE, 0})


def test_of_equal_overlaps_the_last_object_takes_a_box_and_all_equal_boxes_are_taken():
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]], np.float32)
    twice = np.array([[0, 0, 10, 20], [0, 0, 10, 20], [0, 0, 30, 10]], np.float32)  # of each half, half, a third twice
    which = found(boxes, twice, np.ones(3, bool), np.ones(3, bool), by=RPN)
    assert np.asarray(which).tolist() == [2, 2, NEGATIVE]
    which = found(boxes, twice[:2], np.ones(2, bool), np.ones(3, bool), by=RPN)
    assert np.asarray(which).tolist() == [1, NEGATIVE, NEGATIVE]
    which = found(boxes, twice[:2], np.array([True, False]), np.ones(3, bool), by=RPN)  # the second is padding
    assert np.asarray(which).tolist() == [0, NEGATIVE, NEGATIVE]


def test_what_is_not_usable_is_taken_by_nothing_and_hides_nothing():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 12]], np.float32)
    objects = np.array([[0, 0, 10, 10]], np.float32)
    assert np.asarray(found(boxes, objects, np.ones(1, bool), np.ones(2, bool), by=RPN)).tolist() == [0, 0]
    assert np.asarray(found(boxes, objects, np.ones(1, bool), np.array([False, True]), by=RPN)).tolist() == [IGNORED, 0]


def test_an_object_without_an_area_or_outside_takes_no_box():
    boxes = uprights(50, 0)
    objects = np.array([[5, 5, 5, 30], [500, 500, 520, 520]], np.float32)
    assert set(np.asarray(found(boxes, objects, np.ones(2, bool), np.ones(50, bool), by=RETINA))) == {NEGATIVE}


draw = jax.jit(sample, static_argnames=("count", "most"))


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [(500, 500, (8, 24)), (3, 500, (3, 29)), (0, 500, (0, 32)), (500, 5, (8, 5)), (0, 0, (0, 0)), (4, 1, (4, 1))],
    ids=str,
)
def test_so_many_are_drawn_and_each_once(positive, negative, expected):
    kind = np.random.default_rng(0).permutation(np.r_[np.ones(positive), np.zeros(negative), np.full(40, 2)])
    taken = jax.device_get(draw(jax.random.key(1), kind == 1, kind == 0, count=32, most=8))
    assert (int(taken.positive.sum()), int((taken.drawn & ~taken.positive).sum())) == expected
    assert (kind[taken.numbers[taken.positive]] == 1).all()
    assert (kind[taken.numbers[taken.drawn & ~taken.positive]] == 0).all()
    assert len(set(taken.numbers[taken.drawn])) == taken.drawn.sum()
    np.testing.assert_array_equal(taken.drawn, np.arange(32) < sum(expected))


def test_more_are_asked_for_than_there_are():
    taken = jax.device_get(draw(jax.random.key(1), np.array([True, False, False]), np.array([False, True, False]),
                                count=8, most=4))  # fmt: skip
    assert taken.numbers[taken.drawn].tolist() == [0, 1]


def test_every_one_is_drawn_as_often_and_the_key_alone_decides():
    kind = np.arange(40) < 10
    keys = jax.random.split(jax.random.key(0), 2000)
    many = jax.jit(jax.vmap(lambda key: sample(key, kind, ~kind, 12, 3)))
    taken = jax.device_get(many(keys))
    assert taken.drawn.all()
    counts = np.bincount(taken.numbers.ravel(), minlength=40) / 2000
    np.testing.assert_allclose(counts[:10], 3 / 10, atol=0.04)
    np.testing.assert_allclose(counts[10:], 9 / 30, atol=0.04)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(many(keys)), taken)
    assert (np.asarray(jnp.sort(taken.numbers[0])) != np.sort(taken.numbers[1])).any()
