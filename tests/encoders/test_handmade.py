"""Hand-made features against plain loops that define them."""

import numpy as np
import pytest

from scaling.encoders import handmade


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.normal(0, 1.2, (5, 32, 32, 3)).astype(np.float32)


def test_moments_are_those_of_every_patch(images):
    for image, found in zip(images, handmade.patch_moments(images), strict=True):
        patches = [image[y : y + 8, x : x + 8] for y in range(0, 32, 8) for x in range(0, 32, 8)]
        means = np.array([[p[..., c].mean() for c in range(3)] for p in patches])
        deviations = np.array([[p[..., c].std() for c in range(3)] for p in patches])
        expected = [means.mean(0), means.std(0), deviations.mean(0), deviations.std(0)]
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-4, atol=1e-5)


def test_colours_are_counted_in_bins_of_one_deviation(images):
    edges = [-np.inf, -1, 0, 1, np.inf]
    for image, found in zip(images, handmade.colour_histogram(images), strict=True):
        counts, _ = np.histogramdd(image.reshape(-1, 3).astype(np.float64), bins=[edges] * 3)
        np.testing.assert_allclose(found**2, counts.ravel() / 1024, atol=1e-6)
    assert handmade.colour_histogram(images[..., :1]).shape == (5, 64)
    assert handmade.colour_histogram(np.repeat(images, 4, axis=-1)).shape == (5, 60)  # twelve bands, five bins each


def test_floors_of_images_far_from_standardised_are_those_of_standardised_ones(images):
    splits = {"train": images, "test": images[:2] + 0.1}
    for near in (0.5, 1, 2):  # rows of images near it stay
        scaled = {name: x * np.float32(near) for name, x in splits.items()}
        assert handmade.standardised(scaled) is scaled
    constant = {name: x * np.float32([1, 1, 0]) for name, x in splits.items()}
    assert handmade.standardised(constant) is constant
    mean, deviation = images.mean((0, 1, 2)), images.std((0, 1, 2))
    apart = {name: (x - mean) / deviation for name, x in splits.items()}
    other = {name: (x * 0.2 + 0.5).astype(np.float32) for name, x in splits.items()}
    for name in handmade.FLOORS:
        expected, found = handmade.floor_features(name, apart), handmade.floor_features(name, other)
        np.testing.assert_allclose(found["test"], expected["test"], rtol=1e-3, atol=1e-3)
    assert np.ptp(handmade.floor_features("colour_histogram", other)["train"], axis=0).max() > 0.01
    dark = {"train": np.zeros((3, 8, 8, 3), np.float32)}
    assert np.isfinite(handmade.floor_features("patch_moments", dark)["train"]).all()


def test_gradients_are_summed_by_cell_and_orientation(images):
    for image, found in zip(images[:2], handmade.gradient_histogram(images[:2]), strict=True):
        down, right = np.gradient(image.mean(-1).astype(np.float64))
        sums = np.zeros((4, 4, 8))
        for y in range(32):
            for x in range(32):
                strength = np.hypot(down[y, x], right[y, x])
                orientation = int(np.arctan2(down[y, x], right[y, x]) % np.pi / np.pi * 8) % 8
                sums[y // 8, x // 8, orientation] += strength
        np.testing.assert_allclose(found**2, sums.ravel() / sums.sum(), atol=1e-4)


def test_edges_of_one_direction_are_in_one_orientation():
    stripes = np.zeros((1, 32, 32, 3), np.float32) + np.sin(np.arange(32) * 1.0)[:, None, None].astype(np.float32)
    found = handmade.gradient_histogram(stripes)[0].reshape(16, 8) ** 2
    assert found[:, 4].sum() == pytest.approx(1)  # the gradient points down: 90 degrees


def test_the_spectrum_has_its_power_where_a_wave_is():
    x = np.arange(64)
    for cycles, ring in ((4, 1), (13, 4), (30, 11)):
        wave = np.cos(2 * np.pi * cycles * x / 64).astype(np.float32)
        found = handmade.radial_spectrum(np.broadcast_to(wave[:, None], (1, 64, 64, 3)[1:]).copy()[None])
        assert found.shape == (1, 12)
        assert found[0].argmax() == ring
    flat = handmade.radial_spectrum(np.ones((1, 64, 64, 3), np.float32))
    np.testing.assert_allclose(flat, np.log(1e-6), rtol=1e-5)


def test_raw_pixels_of_large_images_are_means_of_squares(images):
    np.testing.assert_array_equal(handmade.raw_pixels(images), images.reshape(5, -1))
    large = np.repeat(np.repeat(images, 4, axis=1), 4, axis=2)  # 128 pixels: squares of 2
    np.testing.assert_allclose(
        handmade.raw_pixels(large), np.repeat(np.repeat(images, 2, 1), 2, 2).reshape(5, -1), rtol=1e-5
    )


def test_groups_of_the_union_weigh_the_same_however_large_they_are(images):
    rng = np.random.default_rng(1)
    splits = {"train": rng.normal(0, 1, (40, 32, 32, 3)).astype(np.float32), "test": images}
    found = handmade.floor_features("handmade", splits)
    assert {name: x.shape for name, x in found.items()} == {"train": (40, 216), "test": (5, 216)}
    sizes = (12, 64, 128, 12)
    for group in np.split(found["train"], np.cumsum(sizes)[:-1], axis=1):
        varies = group.std(0) > 0
        assert np.square(group).sum(1).mean() == pytest.approx(varies.mean(), rel=1e-3)
    other = handmade.floor_features("handmade", {**splits, "test": images[:2]})
    np.testing.assert_array_equal(other["test"], found["test"][:2])  # the scale is of the training images alone


@pytest.mark.parametrize("name", handmade.FLOORS)
def test_every_floor_takes_any_bands_and_size(name):
    for shape in ((3, 16, 16, 1), (3, 24, 20, 2), (3, 64, 64, 13)):
        rng = np.random.default_rng(0)
        splits = {split: rng.normal(size=shape).astype(np.float32) for split in ("train", "test")}
        found = handmade.floor_features(name, splits)
        assert found["train"].shape == found["test"].shape
        assert found["test"].dtype == np.float32
        assert np.isfinite(found["test"]).all()
