"""Resampling agrees with Pillow's antialiased bicubic, whatever the type, the bands and the strides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scaling.data.resample import resample


@st.composite
def boxes(draw):
    height, width = draw(st.integers(3, 90)), draw(st.integers(3, 90))
    left, upper = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
    right, lower = draw(st.integers(left + 1, width)), draw(st.integers(upper + 1, height))
    return height, width, (left, upper, right, lower)


def pillow(image, box, size):
    """Band by band in float32, which Pillow neither rounds nor clips."""
    bands = [Image.fromarray(image[..., b].astype(np.float32)) for b in range(image.shape[2])]
    return np.stack([np.asarray(b.resize(size[::-1], Image.Resampling.BICUBIC, box=box)) for b in bands], axis=-1)


def resampled(image, box, size, dtype):
    out = np.empty((*size, image.shape[2]), dtype)
    resample(image, box, out)
    return out


@settings(max_examples=60, deadline=None)
@given(boxes(), st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from([1, 3, 13]), st.integers(0, 99))
def test_all_types_agree_with_pillow(where, size, bands, seed):
    height, width, box = where
    image = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    expected = pillow(image, box, size)
    for dtype in (np.uint8, np.uint16, np.float32):
        np.testing.assert_allclose(resampled(image.astype(dtype), box, size, np.float32), expected, atol=2e-3)
    rounded = resampled(image, box, size, np.uint8)
    assert np.abs(rounded - expected.clip(0, 255)).max() <= 0.502


def test_eight_bits_are_within_a_level_of_pillow():
    image = np.random.default_rng(0).integers(64, 192, (200, 300, 3), dtype=np.uint8)  # no overshoot past 0 and 255
    expected = Image.fromarray(image).resize((96, 64), Image.Resampling.BICUBIC, box=(10, 20, 290, 190))
    found = resampled(image, (10, 20, 290, 190), (64, 96), np.uint8).astype(int)
    assert np.abs(found - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize("view", [lambda x: x[::-1], lambda x: x[:, ::-1], lambda x: x.swapaxes(0, 1)])
def test_any_view_can_be_read_and_written(view):
    image = np.random.default_rng(0).integers(0, 256, (30, 30, 4), dtype=np.uint8)
    box, out = (2, 2, 28, 28), np.zeros((8, 8, 4), np.uint8)
    resample(view(image), box, view(out))
    np.testing.assert_array_equal(out, resampled(image, box, (8, 8), np.uint8))
