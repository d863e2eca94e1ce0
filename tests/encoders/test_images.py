"""Images that an encoder takes, and what it says of others."""

import contextlib
import dataclasses

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.training.config import TrainConfig
from scaling.training.stored_config import ImportConfig
from tests.encoders.examples import images, pixels_of, small_encoder


@pytest.mark.parametrize(
    ("array", "pool", "message"),
    [
        (images(2)[:, :8], "mean", r"images of shape \[2, 8, 16, 3\], but the encoder takes \[N, 16, 16, 3\]"),
        (images(2)[..., :2], "mean", r"images of shape \[2, 16, 16, 2\], but the encoder takes \[N, 16, 16, 3\]"),
        (images(1)[0, 0], "mean", r"images of shape \[16, 3\], but the encoder takes \[N, 16, 16, 3\]"),
        (np.full((1, 16, 16, 3), np.nan), "mean", "NaN or infinity"),
        (np.full((1, 16, 16, 3), np.inf), "mean", "NaN or infinity"),
        (images(1), "max", "pool='max' is not supported by this encoder; use cls, mean, tokens"),
    ],
)
def test_what_does_not_fit_is_refused(array, pool, message):
    with pytest.raises(UserError, match=message):
        small_encoder().features(array, pool, normalised=True)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 16, 16, 3), np.uint8), np.zeros((2, 16, 16, 3), int), np.zeros((2, 16, 16, 3), bool)]
)
def test_pixels_as_stored_are_refused_with_what_to_do(pixels):
    encoder = small_encoder()
    with pytest.raises(UserError, match=rf"images of {pixels.dtype}: .* encoder.normalise\(pixels\)"):
        encoder.features(pixels, normalised=True)
    assert encoder.features(pixels).shape == (2, 32)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_pixels_of_any_type_are_normalised_as_in_training(dtype, caplog):
    e, x = small_encoder(), pixels_of(5, dtype)
    expected = e.features((x.astype(np.float64) - 100) / 50, "tokens", normalised=True)
    np.testing.assert_allclose(e.features(x, "tokens"), expected, atol=1e-4)
    np.testing.assert_array_equal(
        e.features(x, batch_size=2), e.features(e.normalise(x), batch_size=2, normalised=True)
    )
    assert not caplog.records


@pytest.mark.parametrize(
    "pixels",
    [
        pixels_of(4, np.float32, 1 / 255),  # fractions
        (pixels_of(4) - np.float32(100)) / 50,  # normalised already
        pixels_of(4, np.uint16, 100),  # 16 bits, reflectances
        pixels_of(4, np.float32, 100),
    ],
)
def test_pixels_in_other_units_are_refused(pixels):
    with pytest.raises(
        UserError, match="but those of the training data have mean 100 with deviation 50: these are other units"
    ):
        small_encoder().features(pixels)


@pytest.mark.parametrize(
    ("x", "is_refused"),
    [
        (pixels_of(4) / 255, True),
        (pixels_of(1) / 255, True),  # the values of 8 bits
        (pixels_of(4, np.float32), True),
        (pixels_of(1, np.float32), True),
        (np.random.default_rng(0).random((4, 16, 16, 3)), True),
        (np.random.default_rng(0).random((1, 16, 16, 3)), None),  # a bright image, perhaps: a warning
        (np.abs(images(4)), None),
        (np.abs(images(1)), False),
        (np.zeros((4, 16, 16, 3)), False),
        (np.eye(16)[None, :, :, None] * np.ones((1, 1, 1, 3)), None),
        ((pixels_of(4) - 100.0) / 50, False),
        (np.zeros((0, 16, 16, 3)), False),
    ],
)
def test_what_is_certainly_not_normalised_is_refused(x, is_refused, caplog):
    e = small_encoder()
    refused = pytest.raises(UserError, match=r"not normalised: normalised means \(x - mean\) / std of the training")
    with refused if is_refused else contextlib.nullcontext():
        e.features(x, normalised=True)
    assert bool(caplog.records) == (is_refused is None)
    unknown = dataclasses.replace(e, train=ImportConfig(family="moco_v3"))  # its authors may have divided by 255
    assert unknown.features(x, normalised=True).shape == (len(x), 32)


def test_pixels_of_hardly_any_contrast_are_encoded_with_a_warning_each_time(caplog):
    e, water = small_encoder(), pixels_of(2, np.uint8, 0.01) + np.uint8(20)
    for _ in range(2):
        assert np.isfinite(e.features(water)).all()
    assert len(caplog.records) == 2
    assert "perhaps these are other units" in caplog.text


def test_negative_pixels_of_an_unsigned_training_are_said(caplog):
    small_encoder().features(pixels_of(4).astype(np.int8))  # 128 and more are negative
    assert "perhaps these are other units" in caplog.text


def test_masked_pixels_are_refused():
    x = pixels_of(2)
    with pytest.raises(UserError, match=r"768 values are masked; replace them with images.filled\(value\)"):
        small_encoder().features(np.ma.masked_array(x, np.arange(2)[:, None, None, None] * np.ones_like(x)))
    assert small_encoder().features(np.ma.masked_array(x)).shape == (2, 32)


def test_raw_bytes_for_an_encoder_of_reflectances_are_said(caplog):
    data = DataConfig(mean=(1500.0,) * 3, std=(1200.0,) * 3)
    dataclasses.replace(small_encoder(), train=TrainConfig(data=data)).features(pixels_of(4))
    assert "but those of the training data have mean 1500 with deviation 1200: perhaps" in caplog.text


def test_pixels_need_a_known_normalisation():
    e = dataclasses.replace(small_encoder(), train=ImportConfig(family="moco_v3"))
    with pytest.raises(UserError, match="does not say how its images are normalised"):
        e.features(pixels_of(1))
    assert e.features(images(1), normalised=True).shape == (1, 32)
