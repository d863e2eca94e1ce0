"""A checkpoint as a function from images to features."""

import jax
import numpy as np
import pytest

from scaling.errors import UserError
from scaling.evaluation.encoder import load_encoder
from scaling.evaluation.slimmed import slim
from tests.models import reference


@pytest.fixture(scope="module")
def encoder(straight):
    return load_encoder(straight[0])


def images(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 16, 16, 3))


def test_features_are_those_of_the_reference_encoder(encoder):
    c, x = encoder.config, images(3)
    exact = jax.tree.map(lambda p: np.asarray(p, np.float64), encoder.params)
    tokens = np.stack([reference.encode(exact, image, c) for image in x])
    expected = {"tokens": tokens, "cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1)}
    assert tokens.shape == (3, 17, 32)
    for pool, features in expected.items():
        got = encoder.features(x, pool)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, features, atol=1e-4)


@pytest.mark.parametrize(("pool", "shape"), [("cls", (32,)), ("mean", (32,)), ("tokens", (17, 32))])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_any_number_of_images_in_any_batches(encoder, pool, shape, n):
    features = encoder.features(images(n), pool)
    assert features.shape == (n, *shape)
    np.testing.assert_allclose(encoder.features(images(n), pool, batch_size=2), features, atol=1e-5)


def test_normalisation_is_that_of_the_training(encoder):
    data = encoder.train.data
    x = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose(encoder.normalise(x), (x - np.array(data.mean)) / np.array(data.std), atol=1e-5)


@pytest.mark.parametrize(
    ("array", "pool", "message"),
    [
        (images(2)[:, :8], "mean", r"images of shape \[2, 8, 16, 3\], the encoder takes \[N, 16, 16, 3\]"),
        (images(2)[..., :2], "mean", r"images of shape \[2, 16, 16, 2\], the encoder takes \[N, 16, 16, 3\]"),
        (images(1)[0], "mean", r"images of shape \[16, 16, 3\], the encoder takes \[N, 16, 16, 3\]"),
        (np.full((1, 16, 16, 3), np.nan), "mean", "NaN or infinity"),
        (np.full((1, 16, 16, 3), np.inf), "mean", "NaN or infinity"),
        (images(1), "max", "pool='max' is not offered by this encoder; use"),
    ],
)
def test_what_does_not_fit_is_refused(encoder, array, pool, message):
    with pytest.raises(UserError, match=message):
        encoder.features(array, pool)


def test_the_newest_checkpoint_is_read_unless_one_is_named(straight, encoder):
    workdir = straight[0]
    earlier, last = load_encoder(workdir, step=5), load_encoder(workdir, step=40)
    x = images(2)
    np.testing.assert_array_equal(last.features(x), encoder.features(x))
    assert not np.allclose(earlier.features(x), encoder.features(x), atol=1e-3)


def test_a_checkpoint_that_is_not_there(straight, tmp_path):
    with pytest.raises(UserError, match="has no folder `checkpoints`; give the --workdir of a training run"):
        load_encoder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="has no complete checkpoint yet"):
        load_encoder(tmp_path)
    with pytest.raises(UserError, match=r"has no checkpoint of step 7; there are 5, 10, .*40"):
        load_encoder(straight[0], step=7)


@pytest.mark.parametrize("mode", ["inner", "token", "heads", "head_dim+embed"])
def test_a_slimmed_encoder_is_read_as_if_it_were_cut_after_reading(straight, encoder, mode):
    got, expected = load_encoder(straight[0], width=0.3, slim=mode), slim(encoder, 0.3, mode)
    assert got.config == expected.config
    assert jax.tree.structure(got.params) == jax.tree.structure(expected.params)
    jax.tree.map(np.testing.assert_array_equal, got.params, expected.params)
