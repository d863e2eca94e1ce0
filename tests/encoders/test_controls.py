"""Controls: features that no training went into, of the images the encoder sees."""

import dataclasses

import jax
import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.encoders.controls import CONTROLS, random_weights
from scaling.models.vit import with_learned_positions
from tests.encoders.examples import small_encoder
from tests.models import reference


def images(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 16, 16, 3)).astype(np.float32)


def exact(encoder):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), encoder.params)


@pytest.fixture(scope="module", params=["sincos", "learned"])
def encoder(request):
    return small_encoder(position=request.param)


def test_the_patch_embedding_is_the_mean_of_embedded_patches_and_positions(encoder):
    c, p, x = encoder.config, exact(encoder), images(3)
    positions = p["position"]["embedding"] if c.position == "learned" else reference.sincos(c.grid, c.width)
    tokens = [reference.patches(i, 4) @ p["patch"]["kernel"] + p["patch"]["bias"] + positions for i in x]
    features = CONTROLS["patch_embedding"](encoder, "mean", 0)(x)
    np.testing.assert_allclose(features, np.stack(tokens).mean(1), atol=1e-5)


@pytest.mark.parametrize("class_token", [True, False])
def test_depth_0_is_the_encoder_without_its_blocks(class_token):
    encoder = small_encoder(class_token=class_token)
    nothing, x = dataclasses.replace(encoder.config, depth=0), images(3)
    expected = [reference.encode(exact(encoder), image, nothing)[int(class_token) :].mean(0) for image in x]
    np.testing.assert_allclose(CONTROLS["depth_0"](encoder, "mean", 0)(x), expected, atol=1e-5)


def test_random_weights_are_an_encoder_of_the_same_architecture_drawn_by_the_seed(encoder):
    one, again, other = random_weights(encoder, 7), random_weights(encoder, 7), random_weights(encoder, 8)
    assert one.config == encoder.config
    assert jax.tree.map(np.shape, one.params) == jax.tree.map(np.shape, encoder.params)
    x = images(2)
    np.testing.assert_array_equal(one.features(x, normalised=True), again.features(x, normalised=True))
    assert not np.allclose(one.features(x, normalised=True), other.features(x, normalised=True), atol=1e-2)
    np.testing.assert_array_equal(
        CONTROLS["random_weights"](encoder, "cls", 7)(x), one.features(x, "cls", normalised=True)
    )


def test_band_statistics_are_the_mean_and_deviation_of_each_band(encoder):
    x = images(4)
    features = CONTROLS["band_statistics"](encoder, "mean", 0)(x)
    expected = [[f(image[..., band]) for f in (np.mean, np.std) for band in range(3)] for image in x]
    np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize("name", CONTROLS)
def test_any_number_of_images_gives_as_many_rows(encoder, name, monkeypatch):
    features = CONTROLS[name](encoder, "mean", 0)
    five = features(images(5))
    assert five.dtype == np.float32
    assert features(images(5)[:0]).shape == (0, five.shape[1])
    monkeypatch.setattr("scaling.encoders.controls.BATCH", 2)
    np.testing.assert_allclose(CONTROLS[name](encoder, "mean", 0)(images(5)), five, atol=1e-5)


@pytest.mark.parametrize("name", ["patch_embedding", "depth_0", "random_weights"])
def test_images_that_do_not_fit_the_encoder_are_refused(encoder, name):
    with pytest.raises(UserError, match=r"but the encoder takes \[N, 16, 16, 3\]"):
        CONTROLS[name](encoder, "mean", 0)(images(2)[..., :2])


def test_positions_that_no_training_changes_are_no_noise():
    encoder = small_encoder()
    params, config = with_learned_positions(encoder.params, encoder.config)
    kept = dataclasses.replace(encoder, params=params, config=config)
    drawn = random_weights(kept, 1)
    np.testing.assert_array_equal(drawn.params["position"]["embedding"], params["position"]["embedding"])
    assert not np.allclose(drawn.params["blocks"]["qkv"]["kernel"], params["blocks"]["qkv"]["kernel"])
