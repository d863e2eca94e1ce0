import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.boxes.convert import corners, le135, oc
from scaling.boxes.overlap import rotated_iou, upright_iou
from scaling.boxes.polygons import polygon_iou
from tests.boxes.examples import hard_pairs, random_boxes

R2 = math.sqrt(2)
compiled = jax.jit(rotated_iou)


def degrees(x, y, w, h, angle):
    return (x, y, w, h, math.radians(angle))


# Of dense detection codes' tests and issues, clockwise angles: (one, other, intersection over union).
CASES = {
    "square in a square": ((1, 1, R2, R2, math.pi / 4), (1, 1, 2, 2, 0), 0.5),
    "crossed": (degrees(5, 5, 10, 6, 55), degrees(5, 5, 10, 6, -35), 36 / 84),
    "shifted": ((0, 0, 4, 2, 0), (1, 0, 4, 2, 0), 0.6),
    "touching": ((0, 0, 4, 2, 0), (4, 0, 4, 2, 0), 0),
    "same by other sides": ((0, 0, 4, 2, 0), (0, 0, 2, 4, math.pi / 2), 1),
    "octagon": ((0, 0, 1, 1, 0), (0, 0, 1, 1, math.pi / 4), 0.707107),
    "cross": ((0, 0, 10, 4, 0), (0, 0, 4, 10, 0), 0.25),
    "zero width": ((0, 0, 0, 4, 0), (0, 0, 4, 4, 0), 0),
    "zero both": ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), 0),
    "itself, mmcv 2621": ((0, 0, 180.6422, 136.3634, 0.95596), (0, 0, 180.6422, 136.3634, 0.95596), 1),
    "nearly itself": (
        degrees(299.5, 417.370422, 600, 364.259186, 27.1828),
        degrees(299.5, 417.370422, 600, 364.259155, 27.1828),
        0.99999991,
    ),
    "tiny side, mmcv 2952": ((10, 10, 30, 7.9e-7, 0.3), (10, 10, 30, 20, 0.3), 7.9e-7 / 20),
    # What is 0 one way is not the other: which way a positive angle turns.
    "direction, detectron2 1207": (degrees(160, 153, 230, 23, -37), degrees(190, 127, 80, 21, -46), 0.265493),
    "direction, detectron2 4961": (
        degrees(1010.5, 860.00012, 12.2066, 48.8262, 55.008),
        degrees(1022, 870.4999, 10.8167, 43.2666, 56.3099),
        0,
    ),
    "direction": (degrees(3, 3, 8, 2, -45), degrees(6, 0, 8, 2, -45), 0.306908),
}
COUNTER_CLOCKWISE = {
    "direction, detectron2 1207": 0,
    "direction, detectron2 4961": 0.368761,
    "direction": 0,
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_known_cases(name, dtype):
    one, other, expected = CASES[name]
    a, b = np.array(one, dtype), np.array(other, dtype)
    for found in (rotated_iou(a, b), rotated_iou(b, a), compiled(jnp.asarray(a), jnp.asarray(b))):
        assert found == pytest.approx(expected, abs=1e-6)
    if name in COUNTER_CLOCKWISE:
        mirrored = rotated_iou(a * np.array((1, 1, 1, 1, -1), dtype), b * np.array((1, 1, 1, 1, -1), dtype))
        assert mirrored == pytest.approx(COUNTER_CLOCKWISE[name], abs=3e-6)


def test_table_of_mmcv():
    a = np.array([(1, 1, 3, 4, 0.5), (2, 2, 3, 4, 0.6), (7, 7, 8, 8, 0.4)])
    b = np.array([(0, 2, 2, 5, 0.3), (2, 1, 3, 3, 0.5), (5, 5, 6, 7, 0.4)])
    expected = [[0.3708, 0.4351, 0], [0.1104, 0.4487, 0.0424], [0, 0, 0.3622]]
    np.testing.assert_allclose(rotated_iou(a[:, None], b[None]), expected, atol=5e-5)


def test_float32_of_hard_pairs_beside_polygons_in_float64():
    a, b = hard_pairs(20_000)
    local = a[:, :2].copy()
    for boxes in (a, b):
        boxes[:, :2] -= local  # exact: what is compared is the overlap, not how places are rounded
    expected = polygon_iou(corners(a), corners(b))
    found = compiled(*(jnp.asarray(boxes, jnp.float32) for boxes in (a, b)))
    far = np.abs(np.asarray(found) - expected)
    assert far.max() < 2e-6
    assert (expected > 0.5).sum() > 5000
    assert ((expected > 0) & (expected < 0.5)).sum() > 2000
    np.testing.assert_allclose(rotated_iou(a, b), expected, atol=1e-8)


def test_hard_pairs_beside_shapely():
    shapely = pytest.importorskip("shapely", reason="in the extra `geo`")
    a, b = hard_pairs(40_000)
    local = a[:, :2].copy()
    found = np.asarray(compiled(*(jnp.asarray(boxes, jnp.float32) for boxes in (a, b))))
    for boxes in (a, b):
        boxes[:, :2] -= local
    polygons = [shapely.polygons(corners(boxes)) for boxes in (a, b)]
    shared = shapely.area(shapely.intersection(*polygons))
    expected = shared / (a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - shared)
    lost = np.abs(found - expected) >= 1e-5
    assert lost.sum() <= 4  # of some nearly equal boxes GEOS finds nothing shared
    assert (shared[lost] == 0).all()
    assert np.abs(found - polygon_iou(corners(a), corners(b)))[lost].max(initial=0) < 1e-5


sides = st.floats(0.5, 200)
places = st.floats(-100, 100)
box = st.tuples(places, places, sides, sides, st.floats(-7, 7)).map(np.array)


@given(box, box, st.integers(-4, 4), st.integers(-4, 4))
def test_names_of_a_box_do_not_matter(a, b, turns, others):
    expected = rotated_iou(a, b)
    half = np.array([0, 0, 0, 0, math.pi])
    assert rotated_iou(a + turns * half, b + others * half) == pytest.approx(expected, abs=1e-9)
    assert rotated_iou(oc(a), le135(b)) == pytest.approx(expected, abs=1e-9)


@given(box, box, places, places, st.floats(0.01, 100), st.floats(-7, 7))
def test_moved_scaled_and_turned_together_is_the_same(a, b, x, y, scale, turn):
    expected = rotated_iou(a, b)
    assert 0 <= expected <= 1
    assert rotated_iou(b, a) == pytest.approx(expected, abs=1e-9)
    cos, sin = math.cos(turn), math.sin(turn)
    moved = [
        np.array([cos * p[0] - sin * p[1] + x, sin * p[0] + cos * p[1] + y, *p[2:4], p[4] + turn])
        * (scale, scale, scale, scale, 1)
        for p in (a, b)
    ]
    assert rotated_iou(*moved) == pytest.approx(expected, abs=1e-7)
    mirrored = [p * (-1, 1, 1, 1, -1) for p in (a, b)]
    assert rotated_iou(*mirrored) == pytest.approx(expected, abs=1e-9)


def test_upright_boxes_by_both():
    boxes = random_boxes(40) * (1, 1, 1, 1, 0)
    upright = np.concatenate((boxes[:, :2] - boxes[:, 2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2), axis=1)
    found = upright_iou(upright[:, None], upright[None])
    np.testing.assert_allclose(found, rotated_iou(boxes[:, None], boxes[None]), atol=1e-12)
    assert upright_iou(np.array([0.0, 0, 0, 5]), np.array([0.0, 0, 0, 5])) == 0
    assert (np.diagonal(found) == 1).all()
    assert jax.jit(upright_iou)(jnp.array([0.0, 0, 4, 4]), jnp.array([2.0, 0, 6, 4])) == pytest.approx(1 / 3)
