"""Changes of brightness and colour follow the published formulas, written here with matplotlib's HSV."""

import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

from scaling.data.photometric import bands, none, rgb
from scaling.data.transforms import DRAWS, draws

NOTHING = 0.75  # of a number that is used below a half


def numbers(brightness=NOTHING, first=0.0, contrast=NOTHING, saturation=NOTHING, hue=NOTHING):
    u = [float("nan")] * DRAWS
    u[26:31] = brightness, first, contrast, saturation, hue
    return u


def picture(seed=0):
    smooth = np.random.default_rng(seed).integers(20, 235, size=(6, 5, 3))
    return np.kron(smooth, np.ones((4, 4, 1))).astype(np.uint8)


def changed(change, image, u):
    out = image.copy()
    change(out, u)
    return out


def published(image, brightness=None, contrast=None, contrast_first=True, saturation=None, hue=None):
    """mmsegmentation's transform with these numbers, in colours 0 to 255; HSV without rounding to 8 bits."""

    def convert(x, alpha=1.0, beta=0.0):
        return np.clip(x.astype(np.float64) * alpha + beta, 0, 255).astype(np.uint8)

    out = image if brightness is None else convert(image, beta=brightness)
    out = convert(out, alpha=contrast) if contrast is not None and contrast_first else out
    hsv = rgb_to_hsv(out / 255)
    hsv[..., 1] = hsv[..., 1] if saturation is None else np.clip(hsv[..., 1] * saturation, 0, 1)
    hsv[..., 0] = hsv[..., 0] if hue is None else (hsv[..., 0] + hue / 180) % 1
    out = np.round(255 * hsv_to_rgb(hsv)).astype(np.uint8)
    return convert(out, alpha=contrast) if contrast is not None and not contrast_first else out


@pytest.mark.parametrize(
    ("u", "stated"),
    [
        (numbers(brightness=0.05), {"brightness": -25.6}),
        (numbers(brightness=0.45), {"brightness": 25.6}),
        (numbers(contrast=0.45), {"contrast": 1.4}),
        (numbers(saturation=0.05), {"saturation": 0.6}),
        (numbers(hue=0.0), {"hue": -18}),
        (numbers(hue=0.4999), {"hue": 17}),
        (numbers(0.4, 0.2, 0.4, 0.3, 0.1), {"brightness": 19.2, "contrast": 1.3, "saturation": 1.1, "hue": -11}),
        (
            numbers(0.4, 0.7, 0.4, 0.3, 0.1),
            {"brightness": 19.2, "contrast": 1.3, "saturation": 1.1, "hue": -11, "contrast_first": False},
        ),
    ],
)
def test_colours_are_those_of_the_published_formulas(u, stated):
    got, expected = changed(rgb, picture(), u).astype(int), published(picture(), **stated).astype(int)
    assert np.abs(got - expected).mean() < 1.5  # levels: the HSV in between has 8 bits
    assert np.abs(expected - picture()).mean() > 5


def test_each_change_is_made_half_of_the_time_and_none_of_them_now_and_then():
    same = np.mean([np.array_equal(changed(rgb, picture(), u), picture()) for u in draws(0, 0, 800)])
    assert 0.03 < same < 0.11  # (1/2)^4, and hue by 0


def test_what_does_nothing_does_nothing():
    np.testing.assert_array_equal(changed(none, picture(), draws(0, 0, 1)[0]), picture())
    for change in (rgb, bands):
        np.testing.assert_array_equal(changed(change, picture(), numbers()), picture())


def test_bands_change_contrast_about_their_mean_and_brightness_by_their_deviation():
    image = np.random.default_rng(0).normal([100, 2000, 5], [10, 300, 1], (20, 30, 3)).astype(np.float32)
    got = changed(bands, image, numbers(contrast=0.4))
    np.testing.assert_allclose(got.mean((0, 1)), image.mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(got.std((0, 1)), 1.3 * image.std((0, 1)), rtol=1e-4)
    got = changed(bands, image, numbers(brightness=0.4))
    np.testing.assert_allclose(got, image + 0.3 * image.std((0, 1)), rtol=1e-4)
    assert changed(bands, picture(), numbers(contrast=0.49)).dtype == np.uint8
