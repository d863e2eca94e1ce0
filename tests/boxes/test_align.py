import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from scaling.boxes.align import pyramid_levels, rotated_roi_align
from tests.boxes.examples import random_boxes

SMALL = [[1, 2], [3, 4]]
LARGE = [[1, 2, 5, 6], [3, 4, 7, 8], [9, 10, 13, 14], [11, 12, 15, 16]]


@functools.partial(jax.jit, static_argnames=("stride", "size"))
def compiled(feature, box, stride, size):
    return rotated_roi_align([feature[..., None]], [stride], box[None], jnp.array([0]), size)[0, ..., 0]


def align(feature, box, size, stride=1.0) -> np.ndarray:
    return np.asarray(compiled(jnp.asarray(feature, jnp.float32), jnp.array(box, jnp.float32), stride, size))


@pytest.mark.parametrize(
    ("feature", "box", "expected"),
    [
        (SMALL, (0.5, 0.5, 1, 1, 0), [[1, 1.25], [1.5, 1.75]]),
        (SMALL, (0.5, 0.5, 1, 1, -math.pi / 2), [[1.5, 1], [1.75, 1.25]]),
        (LARGE, (1.5, 1.5, 3, 3, 0), [[1.9375, 4.75], [7.5625, 10.375]]),
        (LARGE, (1.5, 1.5, 3, 3, -math.pi / 2), [[7.5625, 1.9375], [10.375, 4.75]]),
    ],
)
def test_cases_of_mmcv(feature, box, expected):
    """The quarter-turned cases are from its `clockwise=False`, where the angle has the opposite sign."""
    np.testing.assert_allclose(align(feature, box, 2), expected, atol=1e-5)


def test_turned_box_beside_scipy():
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(30, 40))
    x, y, w, h, t = box = (70.0, 52.0, 60.0, 36.0, 0.6)
    steps = (np.arange(14) + 0.5) / 14 - 0.5
    along, across = steps[None] * w / 4, steps[:, None] * h / 4
    columns = x / 4 - 0.5 + along * math.cos(t) - across * math.sin(t)
    rows = y / 4 - 0.5 + along * math.sin(t) + across * math.cos(t)
    expected = map_coordinates(feature, [rows, columns], order=1).reshape(7, 2, 7, 2).mean((1, 3))
    np.testing.assert_allclose(align(feature, box, 7, stride=4.0), expected, atol=1e-5)


def test_beyond_the_border():
    """Up to a pixel outside the border is read, farther away 0."""
    ones = np.ones((4, 4))
    assert align(ones, (0, 2, 1e-3, 1e-3, 0), 1) == pytest.approx(1)  # half a pixel outside of the first centre
    assert align(ones, (-0.6, 2, 1e-3, 1e-3, 0), 1) == pytest.approx(0)
    assert align(ones, (4.4, 2, 1e-3, 1e-3, 0), 1) == pytest.approx(1)
    assert align(ones, (4.6, 2, 1e-3, 1e-3, 0), 1) == pytest.approx(0)
    assert align(ones, (4, 2, 8, 2, 0), 2)[:, 0] == pytest.approx(1)


def test_levels_by_size():
    sizes = np.array([1, 56, 111.9, 112, 224, 448, 5000], np.float32)
    boxes = jnp.asarray(np.stack([sizes * 0, sizes * 0, sizes * 2, sizes / 2, sizes], -1))
    assert pyramid_levels(boxes, 4).tolist() == [0, 0, 0, 1, 2, 3, 3]


def test_every_box_reads_its_level_and_gradients_arrive():
    maps = [jnp.full((8, 8, 3), 1.0), jnp.full((4, 6, 3), 2.0), jnp.full((2, 2, 3), 5.0)]
    boxes = jnp.array([[16.0, 16, 8, 8, 0.3], [16, 16, 8, 8, 1], [16, 16, 8, 8, -1]])

    def read(maps):
        return rotated_roi_align(maps, [4, 8, 16], boxes, jnp.array([2, 0, 1]), 3)

    expected = np.broadcast_to(np.array([5.0, 1, 2])[:, None, None, None], (3, 3, 3, 3))
    np.testing.assert_allclose(jax.jit(read)(maps), expected, rtol=1e-6)
    slopes = jax.jit(jax.grad(lambda maps: read(maps).sum()))(maps)
    assert [float(s.sum()) for s in slopes] == pytest.approx([27, 27, 27], rel=1e-5)
    half = jax.eval_shape(read, [m.astype(jnp.bfloat16) for m in maps])
    assert half.dtype == jnp.bfloat16
    assert half.shape == (3, 3, 3, 3)


def test_gradients_are_those_of_the_maps_for_any_number_of_boxes_and_of_every_image():
    """Reading is linear in the maps: the gradient times a change of the maps equals the slope times the change of
    the result.
    """
    rng = np.random.default_rng(0)
    maps, change = (jnp.asarray(rng.normal(size=(2, 9, 7, 3)), jnp.float32) for _ in range(2))
    boxes = jnp.asarray(random_boxes(2 * 19, spread=8, sides=(4, 30), at=16).reshape(2, 19, 5), jnp.float32)
    slope = jnp.asarray(rng.normal(size=(2, 19, 2, 2, 3)), jnp.float32)

    def read(maps, boxes):
        return jax.vmap(lambda m, b: rotated_roi_align([m], [4.0], b, jnp.zeros(19, int), 2))(maps, boxes)

    @jax.jit
    def both(maps):
        seen, back = jax.vjp(read, maps, boxes)
        return seen, *back(slope)

    _, of_maps, of_boxes = both(maps)
    assert float((of_maps * change).sum()) == pytest.approx(float((slope * both(change)[0]).sum()), rel=1e-4)
    assert not of_boxes.any()
