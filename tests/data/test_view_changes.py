"""Views change by the published recipe: beside Pillow's operations, of which torchvision's are, and scipy's blur."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy.ndimage import gaussian_filter

from scaling.core.errors import UserError
from scaling.data.config import DataConfig, open_sources
from scaling.data.pipeline import eval_batches
from scaling.data.transforms import stream
from scaling.data.view_changes import blurred, byol, byol_bands, jitter
from tests.data.batches import assert_same, digest, take
from tests.data.examples import smooth

NEVER = 0.99  # of what is done below a share


class Numbers:
    """Stands for a generator: returns the given numbers."""

    def __init__(self, *u):
        self._u = np.array(u)

    def random(self, count):
        assert count == len(self._u)
        return self._u


def changed(change, image, numbers, view=0):
    out = image.copy()
    change(out, numbers, view)
    return out


def pillow(image, by, order):
    """torchvision's ColorJitter of a Pillow image."""
    picture = Image.fromarray(image)
    for which in order:
        if which < 3:
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[which]
            picture = enhance(picture).enhance(1 + by[which])
        else:
            hue, *others = picture.convert("HSV").split()
            turned = np.array(hue, np.uint8) + np.int32(by[3] * 255).astype(np.uint8)
            picture = Image.merge("HSV", (Image.fromarray(turned), *others)).convert("RGB")
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("by", "order"),
    [
        ((-0.4, 0, 0, 0), (0,)),
        ((0, 0.4, 0, 0), (1,)),
        ((0, -0.4, 0, 0), (1,)),
        ((0, 0, 0.2, 0), (2,)),
        ((0, 0, 0, 0.1), (3,)),
        ((0, 0, 0, -0.1), (3,)),
        ((0.3, -0.3, 0.2, 0.05), (3, 0, 2, 1)),
    ],
)
def test_colours_are_those_of_pillow(by, order):
    image = smooth(3)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
    jitter(planes, np.array(by, float), np.array(order))
    expected = pillow(image, by, order).astype(float)
    off = np.abs(planes.transpose(1, 2, 0) - expected)
    assert off.mean() < 2.5  # levels: Pillow's hue and saturation have 8 bits, and it rounds after every change
    assert off.max() < 12
    assert np.abs(expected - image).mean() > 3


def test_grey_and_solarised_are_those_of_pillow():
    image, plain = smooth(4), (NEVER, 0.5, 0.5, 0.5, 0.5, 0, NEVER, NEVER, 0, NEVER)
    np.testing.assert_array_equal(changed(byol, image, Numbers(*plain), 1), image)
    grey = changed(byol, image, Numbers(*plain[:6], 0.1, *plain[7:]), 1)
    assert np.abs(grey - np.asarray(Image.fromarray(image).convert("L"), float)[..., None]).max() <= 1
    solarised = changed(byol, image, Numbers(*plain[:9], 0.1), 1)
    np.testing.assert_array_equal(solarised, np.asarray(ImageOps.solarize(Image.fromarray(image))))


def test_the_first_view_is_blurred_and_the_second_may_be_solarised():
    image = smooth(5, 224, 224)
    at_least = (NEVER, 0.5, 0.5, 0.5, 0.5, 0, NEVER, 0.5, 1.0, 0.1)
    first, second = (changed(byol, image, Numbers(*at_least), view) for view in (0, 1))
    np.testing.assert_array_equal(second, np.asarray(ImageOps.solarize(Image.fromarray(image))))
    expected = [gaussian_filter(image[..., c].astype(float), 2.0, mode="nearest", truncate=3) for c in range(3)]
    assert np.abs(first - np.stack(expected, -1)).max() <= 0.51


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0, 5.0])
def test_the_blur_is_gaussian_with_a_continued_border(sigma):
    image = np.random.default_rng(0).normal(size=(13, 17, 5)).astype(np.float32)
    expected = [
        gaussian_filter(band.astype(float), sigma, mode="nearest", radius=int(np.ceil(3 * sigma)))
        for band in image.transpose(2, 0, 1)
    ]
    np.testing.assert_allclose(blurred(image, sigma), np.stack(expected, -1), atol=1e-6)


def test_how_often_each_change_is_made():
    image, flat = smooth(6, 8, 8), np.full((8, 8, 3), (200, 90, 60), np.uint8)
    grey = [np.ptp(changed(byol, flat, stream(0, i, 1), 1), axis=2).max() == 0 for i in range(800)]
    same = [np.array_equal(changed(byol, image, stream(0, i, 1), 1), image) for i in range(800)]
    assert 0.16 < np.mean(grey) < 0.24
    assert 0.08 < np.mean(same) < 0.16  # 0.2 x 0.8 x 0.9 x 0.8


def test_bands_change_each_by_itself():
    image = np.random.default_rng(0).normal([100, 2000, 5, 0], [10, 300, 1, 2], (40, 30, 4)).astype(np.float32)
    contrast, shift = np.array([1.0, 0.0, 0.5, 0.75]), np.array([0.5, 1.0, 0.5, 0.0])
    got = changed(byol_bands, image, Numbers(0.1, NEVER, 0, *shift, *contrast), 1)
    mean, deviation = image.mean((0, 1)), image.std((0, 1))
    np.testing.assert_allclose(got.mean((0, 1)), mean + (0.8 * shift - 0.4) * deviation, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got.std((0, 1)), (0.6 + 0.8 * contrast) * deviation, rtol=1e-4)
    same = changed(byol_bands, image, Numbers(NEVER, NEVER, 0, *shift, *contrast), 1)
    np.testing.assert_array_equal(same, image)


@pytest.mark.parametrize(
    ("source", "kind"), [("scenes?size=24&count=40", "byol"), ("scenes:ms?size=24&count=40", "byol_bands")]
)
def test_views_are_the_same_whoever_makes_them(source, kind):
    config = DataConfig(source=source, photometric=kind, threads=2)
    straight = take(3, config, views=2)
    assert_same(straight[2:], take(1, config, start=2, views=2))
    assert_same(straight, take(3, DataConfig(source=source, photometric=kind, threads=7), views=2))
    halves = [take(3, config, views=2, rows=(range(i, i + 4),)) for i in (0, 4)]
    assert_same(straight, [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*halves, strict=True)])
    plain = take(3, DataConfig(source=source, threads=2), views=2)
    for key in ("image", "image_1"):
        assert all((a[key] != b[key]).mean() > 0.2 for a, b in zip(straight, plain, strict=True))
    np.testing.assert_array_equal(straight[0]["id"], plain[0]["id"])


def test_the_first_view_of_evaluation_is_plain_and_the_second_stays():
    config = DataConfig(source="scenes?size=24&count=40", photometric="byol", eval_share=0.3)
    plain = DataConfig(source="scenes?size=24&count=40", eval_share=0.3)
    made = [
        list(eval_batches(open_sources(c)[1], c, image_size=16, batch_size=8, views=2)) for c in (config, config, plain)
    ]
    assert digest(made[0]) == digest(made[1])
    np.testing.assert_array_equal(made[0][0]["image"], made[2][0]["image"])
    assert (made[0][0]["image_1"] != made[2][0]["image_1"]).mean() > 0.2


def test_colours_are_wanted_where_colours_are_changed():
    with pytest.raises(UserError, match=r"photometric=byol: .* not 6 bands of uint16; byol_bands is for any bands"):
        take(1, DataConfig(source="scenes:ms?size=16&count=8", photometric="byol"))
