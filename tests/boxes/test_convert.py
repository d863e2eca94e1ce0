import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.boxes.convert import (
    corners,
    from_hulls,
    from_quadrilaterals,
    from_rectangles,
    half_turns,
    hulls,
    le90,
    le135,
    oc,
)
from tests.boxes.examples import random_boxes

CONVENTIONS = {
    le90: (-math.pi / 2, math.pi / 2),
    le135: (-math.pi / 4, 3 * math.pi / 4),
    oc: (0, math.pi / 2),
}
numbers = st.floats(-1000, 1000)
boxes_ = st.tuples(numbers, numbers, st.floats(0.01, 500), st.floats(0.01, 500), st.floats(-20, 20)).map(np.array)


def same_outline(a: np.ndarray, b: np.ndarray, within: float = 1e-6) -> None:
    """Corners [4, 2] in whichever order."""
    far = np.hypot(*np.moveaxis(a[:, None] - b[None], -1, 0))
    assert far.min(0).max() < within
    assert far.min(1).max() < within


def test_corners_turn_clockwise_on_the_screen():
    found = corners(np.array([10.0, 20, 4, 2, math.pi / 2]))
    np.testing.assert_allclose(found, [[11, 18], [11, 22], [9, 22], [9, 18]], atol=1e-12)
    x, y = corners(np.array([0.0, 0, 8, 2, math.radians(30)]))[1:3].mean(0)  # the middle of the right side
    assert x > 0
    assert y > 0  # below, as y points down


@given(boxes_)
def test_every_convention_names_the_same_rectangle(box):
    for convention, (low, high) in CONVENTIONS.items():
        found = convention(box)
        same_outline(corners(found), corners(box))
        assert low <= found[4] <= high
        if convention is oc:
            assert found[4] > 0
        else:
            assert found[4] < high
            assert found[2] >= found[3]
        np.testing.assert_allclose(convention(found), found, atol=1e-9)


@pytest.mark.parametrize("turns", [-1, 0, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_angles_at_the_ends_of_the_range_stay_in_it(turns, dtype):
    for start in (-math.pi / 2, -math.pi / 4):
        for offset in (-1e-9, -1e-17, 0, 1e-9):
            found = half_turns(np.array(start + turns * math.pi + offset, dtype), start)
            assert dtype(start) <= found < dtype(start + math.pi)
    quarter = oc(np.array([0, 0, 4, 2, turns * math.pi / 2], dtype))
    assert 0 < quarter[4] <= dtype(math.pi / 2)
    same_outline(corners(quarter), corners(np.array([0, 0, 4, 2, turns * math.pi / 2])), 1e-5)


@given(boxes_, st.integers(0, 3), st.booleans())
def test_corners_of_a_box_give_it_back(box, first, reverse):
    outline = np.roll(corners(box), first, 0)[:: -1 if reverse else 1]
    for found in (from_rectangles(outline), from_quadrilaterals(outline)):
        same_outline(corners(found), outline)
        assert found[2] >= found[3]


def test_smallest_box_around_a_quadrilateral_is_the_smallest_over_all_angles():
    rng = np.random.default_rng(0)
    quadrilaterals = rng.uniform(0, 100, (200, 4, 2))  # in any order: crossed and not convex, too
    boxes = from_quadrilaterals(quadrilaterals)
    cos, sin = np.cos(boxes[:, 4, None]), np.sin(boxes[:, 4, None])
    away = quadrilaterals - boxes[:, None, :2]
    assert (np.abs(away[..., 0] * cos + away[..., 1] * sin) <= boxes[:, 2, None] / 2 + 1e-9).all()
    assert (np.abs(away[..., 1] * cos - away[..., 0] * sin) <= boxes[:, 3, None] / 2 + 1e-9).all()
    best = np.full(len(quadrilaterals), np.inf)
    for t in np.linspace(0, math.pi / 2, 2000):
        x = quadrilaterals @ (math.cos(t), math.sin(t))
        y = quadrilaterals @ (-math.sin(t), math.cos(t))
        best = np.minimum(best, np.ptp(x, -1) * np.ptp(y, -1))
    area = boxes[:, 2] * boxes[:, 3]
    assert (area <= best + 1e-9).all()
    assert (area >= best * 0.99).all()


def test_corners_on_a_line_and_in_a_point_give_boxes_without_height():
    line = from_quadrilaterals(np.array([[0.0, 0], [3, 4], [6, 8], [0, 0]]))
    np.testing.assert_allclose(line, [3, 4, 10, 0, math.atan2(4, 3)], atol=1e-12)
    np.testing.assert_array_equal(from_quadrilaterals(np.full((4, 2), 7.0)), [7, 7, 0, 0, 0])


def test_upright_boxes_and_hulls():
    upright = np.array([[10.0, 20, 50, 30], [0, 0, 2, 8]])
    boxes = from_hulls(upright)
    np.testing.assert_allclose(boxes, [[30, 25, 40, 10, 0], [1, 4, 8, 2, -math.pi / 2]])
    np.testing.assert_allclose(hulls(corners(boxes)), upright, atol=1e-12)


def test_jax_and_numpy_say_the_same_also_compiled():
    boxes = random_boxes(50).astype(np.float32)
    outlines = corners(boxes)
    for function, argument in (
        (corners, boxes),
        (le90, boxes),
        (le135, boxes),
        (oc, boxes),
        (from_quadrilaterals, outlines),
        (from_rectangles, outlines),
        (hulls, outlines),
    ):
        compiled = jax.jit(function)(jnp.asarray(argument))
        assert isinstance(compiled, jax.Array)
        assert compiled.dtype == function(argument).dtype == np.float32
        np.testing.assert_allclose(compiled, function(argument), atol=2e-4)
    assert corners(np.zeros((0, 5))).shape == (0, 4, 2)
    assert from_quadrilaterals(np.zeros((0, 4, 2))).shape == (0, 5)
