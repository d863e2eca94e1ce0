import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.boxes.coders import from_midpoint_offset, from_rotated_delta, midpoint_offset, rotated_delta
from scaling.boxes.convert import corners, le90
from scaling.boxes.overlap import rotated_iou
from tests.boxes.examples import random_boxes

ANCHOR = np.array([71.0, 64, 121, 104])  # middle (96, 84), 50 x 40


def test_midpoint_offset_by_hand():
    turned = np.array([100, 80, 40, 20, math.radians(30)])
    found = midpoint_offset(ANCHOR, turned)
    np.testing.assert_allclose(found, [0.08, -0.1, -0.113370, -0.069336, -0.551982, 0.071797], atol=1e-6)
    np.testing.assert_allclose(from_midpoint_offset(ANCHOR, found), turned, atol=1e-9)
    upright = np.array([100.0, 80, 40, 20, 0])
    found = midpoint_offset(ANCHOR, upright)
    np.testing.assert_allclose(found, [0.08, -0.1, -0.223144, -0.693147, 1, 1], atol=1e-6)
    np.testing.assert_allclose(from_midpoint_offset(ANCHOR, found), upright, atol=1e-9)


def test_midpoint_offsets_that_are_not_of_a_rectangle():
    square = from_midpoint_offset(ANCHOR, np.zeros(6))
    np.testing.assert_allclose(square[:4], [96, 84, 35.3553, 35.3553], atol=1e-4)
    assert abs(square[4]) == pytest.approx(math.pi / 4)
    moved = from_midpoint_offset(np.array([-20.0, -10, 20, 10]), np.array([0, 0, 0, 0, 0.5, 0]))
    np.testing.assert_allclose(moved, [0, 0, 36.9552, 15.3073, -0.3927], atol=1e-4)
    wild = from_midpoint_offset(ANCHOR, np.array([0, 0, 50, -50, 9, -9.0]))
    assert np.isfinite(wild).all()
    limits = np.array([0, 0, abs(math.log(0.016)), math.log(0.016), 1, -1])
    np.testing.assert_allclose(wild, from_midpoint_offset(ANCHOR, limits), rtol=1e-6)


def test_rotated_delta_by_hand():
    proposal = np.array([100, 100, 60, 30, 0.2])
    for box, expected in (
        ((103, 98, 50, 25, 0.35), (0.423810, -0.852047, -0.911608, -0.911608, 1.5)),
        ((103, 98, 50, 45, -1.3), (0.423810, -0.852047, -1.438410, 2.554128, 0.707963)),
    ):
        found = rotated_delta(proposal, np.array(box))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(from_rotated_delta(proposal, found), box, atol=1e-9)


@pytest.mark.parametrize("coder", [(midpoint_offset, from_midpoint_offset), (rotated_delta, from_rotated_delta)])
def test_there_and_back(coder):
    encode, decode = coder
    boxes = le90(random_boxes(500))
    of = random_boxes(500, seed=1)
    of = le90(of) if encode is rotated_delta else np.concatenate((of[:, :2] - of[:, 2:4], of[:, :2] + of[:, 2:4]), 1)
    back = decode(of, encode(of, boxes))
    overlap = rotated_iou(boxes, back)
    assert np.median(overlap) > 1 - 1e-9
    assert overlap.min() > (1 - 1e-9 if encode is rotated_delta else 0.95)  # two corners a tenth of a pixel apart
    assert (back[:, 2] >= back[:, 3]).all()
    compiled = jax.jit(lambda a, b: decode(a, encode(a, b)))(*(jnp.asarray(x, jnp.float32) for x in (of, boxes)))
    assert compiled.dtype == jnp.float32
    np.testing.assert_allclose(rotated_iou(boxes, np.asarray(compiled, np.float64)), overlap, atol=1e-3)


def test_middles_are_kept_in_the_image_where_it_is_given():
    proposal = np.array([95.0, 10, 40, 20, 0])
    far = np.array([5.0, -9, 0, 0, 0])
    np.testing.assert_allclose(from_rotated_delta(proposal, far, (60, 100))[:2], [99, 0])
    np.testing.assert_allclose(from_rotated_delta(proposal, far)[:2], [115, -8])
    assert corners(from_rotated_delta(proposal, far)).shape == (4, 2)
