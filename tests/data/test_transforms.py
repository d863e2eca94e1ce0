"""Crops follow torchvision's rule and Pillow's resampling, whatever the type and the number of bands."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scaling.data.transforms import centre_resize, crop_box, draws, flip, random_resized_crop, resize, shrink
from scaling.errors import UserError
from tests.data.examples import smooth

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)


@st.composite
def boxes(draw):
    height, width = draw(st.integers(3, 90)), draw(st.integers(3, 90))
    left, upper = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
    right, lower = draw(st.integers(left + 1, width)), draw(st.integers(upper + 1, height))
    return height, width, (left, upper, right, lower)


@settings(max_examples=60, deadline=None)
@given(boxes(), st.integers(1, 40), st.integers(0, 99))
def test_resize_agrees_with_pillow_on_the_whole_image(where, size, seed):
    height, width, box = where
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=box)
    difference = resize(image, box, (size, size)).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 1


@settings(max_examples=30, deadline=None)
@given(boxes(), st.integers(1, 40), st.sampled_from([np.uint16, np.float32]), st.sampled_from([1, 2, 3, 13]))
def test_other_types_are_resampled_by_the_same_filter(where, size, dtype, bands):
    height, width, box = where
    # A quarter of the range on each side keeps the filter's overshoot away from the ends of uint8.
    image = np.random.default_rng(0).integers(64, 192, (height, width, bands), dtype=np.uint8)
    found = resize(image.astype(dtype), box, (size, size))
    assert found.dtype == np.float32
    assert found.shape == (size, size, bands)
    assert np.abs(found - resize(image, box, (size, size)).astype(float)).max() <= 1.5  # uint8 rounds twice


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


def test_draws_depend_on_seed_and_position_alone():
    together = draws(5, 100, 7)
    assert [draws(5, 100 + i, 1)[0] for i in range(7)] == together
    assert draws(6, 100, 1) != draws(5, 100, 1)
    assert len({tuple(u) for u in together}) == 7


@pytest.mark.parametrize(("kind", "symmetries"), [("none", 1), ("horizontal", 2), ("dihedral", 8)])
def test_flips_reach_every_symmetry_and_no_other(kind, symmetries):
    image = np.arange(9, dtype=np.uint8).reshape(3, 3, 1)
    found = {flip(image, u, kind).tobytes() for u in draws(0, 0, 200)}
    turned = [np.rot90(image, k) for k in range(4)]
    every = {t.tobytes() for turn in turned for t in (turn, turn[:, ::-1])}
    assert len(found) == symmetries
    assert found <= every


def test_unknown_flips():
    with pytest.raises(UserError, match="horizontal, dihedral"):
        flip(np.zeros((2, 2, 1), np.uint8), [0.0] * 32, "sideways")


def test_types_of_a_random_crop():
    u = draws(0, 0, 1)[0]
    assert random_resized_crop(smooth(0), u, 16).dtype == np.uint8
    assert random_resized_crop(smooth(0).astype(np.uint16), u, 16).dtype == np.float32


def test_centre_resize_keeps_the_middle():
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 200
    np.testing.assert_array_equal(centre_resize(image, 20), 200)


def test_shrink_keeps_the_ratio_and_never_enlarges():
    image = smooth(0, 60, 90)
    assert shrink(image, 30).shape == (30, 45, 3)
    assert shrink(image, 60) is image
