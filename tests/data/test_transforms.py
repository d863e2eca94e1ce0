"""Crops follow torchvision's rule; flips reach every symmetry."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.core.errors import UserError
from scaling.data.geometry import Geometry
from scaling.data.transforms import (
    centre_resize,
    crop_box,
    draws,
    of_several_classes,
    random_resized_crop,
    ratio_crop,
    rotation,
    shrunk,
    turn,
)
from tests.data.examples import smooth

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**31))
def test_crops_lie_inside_with_permitted_area_and_ratio(height, width, seed):
    left, upper, right, lower = crop_box(draws(seed, 0, 1)[0], height, width, SCALE, RATIO)
    w, h = right - left, lower - upper
    assert 0 <= left < right <= width
    assert 0 <= upper < lower <= height
    if min(w, h) > 20:  # rounding to pixels aside
        assert 0.7 < w / h < 1.43
        assert w * h > 0.18 * height * width or max(height, width) > 2 * min(height, width)


@pytest.mark.parametrize(
    ("height", "width", "box"), [(10, 100, (43, 0, 56, 10)), (100, 10, (0, 43, 10, 56)), (30, 30, (0, 0, 30, 30))]
)
def test_when_ten_tries_fail_the_central_crop_is_taken(height, width, box):
    too_large = [0.999999, 0.999999] * 10 + [0.5] * 12  # all of the area at a ratio of 4:3 never fits
    assert crop_box(too_large, height, width, (1.0, 1.0), RATIO) == box


def test_area_of_crops_is_uniform():
    found = [crop_box(u, 400, 400, SCALE, RATIO) for u in draws(0, 0, 4000)]
    area = np.array([(right - left) * (lower - upper) for left, upper, right, lower in found]) / 400**2
    # A share a above 3/4 fits a square with probability ln(1/a) / ln(4/3), else it is drawn again: the mean of what is
    # accepted is the integral of a times that over the integral of that, 0.5384 from 0.2 to 1.
    np.testing.assert_allclose(area.mean(), 0.5384, atol=0.01)
    centre = np.array([(left + right, upper + lower) for left, upper, right, lower in found]).mean(axis=0) / 2
    np.testing.assert_allclose(centre, 200, atol=4)


@pytest.mark.parametrize("view", [0, 1, 3])
def test_draws_depend_on_seed_position_and_view_alone(view):
    together = draws(5, 100, 7, view)
    assert [draws(5, 100 + i, 1, view)[0] for i in range(7)] == together
    assert draws(6, 100, 1, view) != draws(5, 100, 1, view)
    assert len({tuple(u) for u in together}) == 7


def test_every_view_has_numbers_of_its_own():
    assert draws(5, 100, 7, 0) == draws(5, 100, 7)
    assert len({draws(seed, 100, 1, view)[0][0] for seed in (5, 6) for view in range(4)}) == 8


def taken(image, geometry):
    """The part of an image that a geometry takes."""
    out = np.empty((*geometry.size, image.shape[2]), image.dtype)
    geometry.image(image, out)
    return out


def flipped(image, u, kind):
    height, width = image.shape[:2]
    return taken(image, Geometry((0, 0, width, height), (height, width), turn(u, kind)))


@pytest.mark.parametrize(("kind", "symmetries"), [("none", 1), ("horizontal", 2), ("dihedral", 8)])
def test_flips_reach_every_symmetry_and_no_other(kind, symmetries):
    image = np.arange(9, dtype=np.uint8).reshape(3, 3, 1)
    found = {flipped(image, u, kind).tobytes() for u in draws(0, 0, 200)}
    turned = [np.rot90(image, k) for k in range(4)]
    every = {t.tobytes() for turn in turned for t in (turn, turn[:, ::-1])}
    assert len(found) == symmetries
    assert found <= every


def test_unknown_flips():
    with pytest.raises(UserError, match="horizontal, dihedral"):
        turn([0.0] * 32, "sideways")


def test_what_is_written_through_a_flip_is_the_flipped_image():
    image = smooth(0, 16, 16)
    for u in draws(0, 0, 20):
        plain, mirrored = (taken(image, random_resized_crop(u, 16, 16, 8, flips=kind)) for kind in ("none", "dihedral"))
        np.testing.assert_array_equal(mirrored, flipped(plain, u, "dihedral"))


@pytest.mark.parametrize("flips", ["none", "dihedral"])
@pytest.mark.parametrize("crop", [random_resized_crop, functools.partial(ratio_crop, ratio=(0.5, 2.0))])
def test_crops_have_the_shape_of_what_they_are_resized_to_also_where_they_are_turned(crop, flips):
    """A picture of the coordinates stays one: both change at the same rate along their own axis."""
    y, x = np.mgrid[:200, :200].astype(np.float32)
    image, rates, turned = np.stack([y, x], axis=-1), [], set()
    for u in draws(0, 0, 60):
        geometry = crop(u, 200, 200, size=(48, 32), flips=flips)
        assert geometry.size == (48, 32)
        left, upper, right, lower = geometry.box
        if not 0 <= left < right <= 200 or not 0 <= upper < lower <= 200:
            continue  # padded
        out = taken(image, geometry)
        slopes = [np.abs(np.diff(out[4:-4, 4:-4], axis=axis)).mean((0, 1)) for axis in (0, 1)]  # [2, bands]
        turned.add(geometry.turn[2])
        rates.append(slopes[0].max() / slopes[1].max())
    assert turned == ({False, True} if flips == "dihedral" else {False})
    low, high = (3 / 4, 4 / 3) if crop is random_resized_crop else (1, 1)
    assert 0.93 * low < min(rates) <= max(rates) < 1.07 * high


@pytest.mark.parametrize(
    ("height", "width", "size", "box"),
    [
        (60, 90, (48, 32), (25, 0, 65, 60)),
        (90, 60, (48, 32), (0, 0, 60, 90)),
        (90, 60, (32, 48), (0, 25, 60, 65)),
        (61, 47, 30, (0, 7, 47, 54)),
    ],
)
def test_the_central_part_is_the_largest_of_its_shape(height, width, size, box):
    assert centre_resize(height, width, size).box == box


def test_centre_resize_keeps_the_middle():
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 200
    np.testing.assert_array_equal(taken(image, centre_resize(20, 60, 20)), np.full((20, 20, 3), 200))


def test_shrink_keeps_the_ratio_and_never_enlarges():
    image = smooth(0, 60, 90)
    small = shrunk(60, 90, 30)
    assert small == Geometry((0, 0, 90, 60), (30, 45), part=False)
    assert shrunk(60, 90, 60).size == shrunk(60, 90, 61).size == (60, 90)
    exact = taken(image.astype(np.float32) * 200, small)
    wide = taken(image.astype(np.uint16) * 200, small)
    np.testing.assert_allclose(wide, exact.clip(0, 65535), atol=0.51)


def test_ratios_are_uniform_and_squares_lie_anywhere():
    boxes = [ratio_crop(u, 600, 800, 100, (0.5, 2.0)).box for u in draws(0, 0, 4000)]
    sides = np.array([right - left for left, _, right, _ in boxes])
    assert {bottom - top for _, top, _, bottom in boxes} == set(sides.tolist())
    assert 50 <= sides.min() < 52 < 195 < sides.max() <= 200
    np.testing.assert_allclose((100 / sides).mean(), 1.25, atol=0.02)
    np.testing.assert_allclose(np.mean([(b[0] + b[2], b[1] + b[3]) for b in boxes], 0) / 2, (400, 300), rtol=0.03)
    assert all(min(b[:2]) >= 0 and b[2] <= 800 and b[3] <= 600 for b in boxes)


def test_the_shorter_side_at_ratio_one_may_be_given():
    (u,) = draws(0, 0, 1)
    left, upper, right, lower = ratio_crop(u, 1024, 1024, 512, (1.0, 1.0), base=512).box
    assert (left, upper, right, lower) == (0, 0, 1024, 1024)


def test_a_small_image_is_padded_to_its_right_and_below_it():
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    geometry = ratio_crop(draws(0, 0, 1)[0], 3, 4, 6, (1.0, 1.0))
    out = np.empty((6, 6), np.uint8)
    geometry.mask(mask, out, 255)
    np.testing.assert_array_equal(out, np.pad(mask, ((0, 3), (0, 2)), constant_values=255))


def test_crops_of_one_class_are_drawn_again_ten_times():
    seen = []

    def never(geometry):
        seen.append(geometry.box)
        return False

    (u,) = draws(3, 0, 1)
    geometry = ratio_crop(u, 500, 500, 64, (0.5, 2.0), good=never)
    assert len(set(seen)) == 11
    assert geometry.box == seen[-1]
    first = ratio_crop(u, 500, 500, 64, (0.5, 2.0))
    assert first.box == seen[0]
    assert len({right - left for left, _, right, _ in seen}) == 1


@pytest.mark.parametrize(
    ("labels", "fine"),
    [([0, 0, 0, 1], False), ([0, 0, 1, 1], True), ([0, 0, 0, 0], False), ([9, 9, 0, 1], True), ([9, 9, 9, 9], False)],
)
def test_a_crop_has_two_classes_and_less_than_three_quarters_of_one(labels, fine):
    mask = np.array(labels, np.uint8).reshape(2, 2)
    assert of_several_classes(mask, Geometry((0, 0, 2, 2), (8, 8)), ignore=9, share=0.75) == fine


def test_rotations_are_uniform_over_a_share_of_the_images():
    angles = np.array([rotation(u, 0.4) for u in draws(0, 0, 4000)])
    assert (angles > 0).mean() == pytest.approx(0.4, abs=0.03)
    counts = np.histogram(angles[angles > 0], 8, (0, 2 * np.pi))[0]
    assert counts.min() > 0.7 * counts.mean()
    quarters = [rotation(u, 0.4, quarters=True) for u in draws(0, 0, 400)]
    assert sorted({round(angle / (np.pi / 2), 9) for angle in quarters}) == [0, 1, 2, 3]
    assert not any(rotation(u, 0.0) for u in draws(0, 0, 50))
