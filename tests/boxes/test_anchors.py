"""Anchors are where mmdetection has them."""

import numpy as np

from scaling.boxes.anchors import anchors, inside

STRIDES, SHAPES = (4, 8, 16, 32, 64), [(1024 // stride,) * 2 for stride in (4, 8, 16, 32, 64)]


def test_those_of_the_oriented_proposals_of_a_picture_of_1024_pixels():
    found = anchors(SHAPES, STRIDES, (8,), (0.5, 1, 2))
    assert len(found) == 261_888  # of 87,296 cells
    sides = found[:, 2:] - found[:, :2]
    np.testing.assert_allclose(sides[1::3][[0, 70_000, -1]], [[32, 32], [64, 64], [512, 512]], rtol=1e-6)
    np.testing.assert_allclose(sides[:3], [[32 * 2**0.5, 32 / 2**0.5], [32, 32], [32 / 2**0.5, 32 * 2**0.5]], rtol=1e-6)
    np.testing.assert_allclose(found[1], (-16, -16, 16, 16))  # without half a cell
    np.testing.assert_allclose(found[3 * 256 + 3 + 1], (4 - 16, 4 - 16, 4 + 16, 4 + 16))  # second row, second column
    np.testing.assert_allclose(found[3 * 256 * 256 + 4], (8 - 32, -32, 8 + 32, 32))  # second level, second column


def test_several_scales_change_before_the_ratio():
    found = anchors([(1, 1)], [8], (4, 4 * 2 ** (1 / 3)), (1, 4))
    sides = found[:, 2:] - found[:, :2]
    expected = [[32, 32], [32 * 2 ** (1 / 3)] * 2, [16, 64], [16 * 2 ** (1 / 3), 64 * 2 ** (1 / 3)]]
    np.testing.assert_allclose(sides, expected, rtol=1e-6)


def test_inside_is_left_of_the_right_border():
    upright = np.array([[0, 0, 9, 19], [-1, 0, 5, 5], [0, 0, 10, 5], [0, 0, 5, 20], [3, 3, 9.9, 19.9]], np.float32)
    assert inside(upright, (20, 10)).tolist() == [True, False, False, False, True]
