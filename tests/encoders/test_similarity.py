"""Similarity of layers against plain numpy on all tokens at once."""

import dataclasses

import jax
import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.encoders.pruned import decide
from scaling.encoders.similarity import Covariances, images_at_once, measure
from scaling.models.activations import layer_tokens
from tests.slimming.encoders import encoder, images


@pytest.fixture(scope="module")
def e():
    return encoder(depth=4)


@pytest.fixture(scope="module")
def x(e):
    return images(24, e.config)


def states(e, x, tokens="all"):
    """Rows of all states, float64 [L + 1, n, D]."""
    found = np.asarray(layer_tokens(e.params, x, e.config, tuple(range(e.config.depth + 1))), np.float64)
    if tokens == "mean":
        return found[:, :, e.config.prefix :].mean(2)
    return found[:, :, 0] if tokens == "cls" else found.reshape(len(found), -1, found.shape[-1])


def cka(rows):
    """Kornblith et al., equation of the linear kernel, in features."""
    centred = rows - rows.mean(1, keepdims=True)

    def hsic(a, b):
        return np.square(a.T @ b).sum()

    return np.array([[hsic(a, b) / np.sqrt(hsic(a, a) * hsic(b, b)) for b in centred] for a in centred])


def unbiased(a, b):
    """Equation 5 of Song et al. (2012), in Gram matrices."""
    n = len(a)
    k, m = (y @ y.T * (1 - np.eye(n)) for y in (a, b))
    one = np.ones(n)
    cross = one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 * (one @ k @ m @ one) / (n - 2)
    return (np.trace(k @ m) + cross) / (n * (n - 3))


@pytest.mark.parametrize("tokens", ["all", "mean", "cls"])
def test_one_batch_is_the_ratio_of_its_terms(e, x, tokens):
    found, first = measure([e], [[x[:7]], [x[7:]]], tokens), int(tokens == "cls")
    rows = states(e, x, tokens)[first:]
    np.testing.assert_allclose(found.cka("biased")[first:, first:], cka(rows), rtol=2e-5)
    terms = np.array([[unbiased(a, b) for b in rows] for a in rows])
    own = np.diagonal(terms)
    np.testing.assert_allclose(found.cka()[first:, first:], terms / np.sqrt(np.outer(own, own)), rtol=5e-4)
    assert np.abs(found.cka() - found.cka("biased"))[first:, first:].max() > 1e-3


def test_the_class_token_before_the_first_block_is_like_nothing(e, x):
    found = measure([e], [[x]], "cls")
    assert np.isnan(found.cka()[0]).all()
    assert np.isfinite(found.cka()[1:, 1:]).all()
    assert decide(found, "simpler", 0, "debiased", False).keep
    for rule, with_input in (("simpler", True), ("cka_interval", False)):
        with pytest.raises(UserError, match="state 0: its rows do not differ by more than chance"):
            decide(found, rule, 2, "debiased", with_input)


def test_terms_are_averaged_over_batches_before_the_ratio(e, monkeypatch):
    monkeypatch.setattr("scaling.encoders.similarity._POOLED", 8)
    x = images(24, e.config)
    found = measure([e], [[x[:5]], [x[5:]]], "mean")
    assert found.batches == 3
    rows = states(e, x, "mean")
    parts = [rows[:, i : i + 8] for i in (0, 8, 16)]
    terms = np.mean([[[unbiased(a, b) for b in part] for a in part] for part in parts], axis=0)
    own = np.diagonal(terms)
    np.testing.assert_allclose(found.cka(), terms / np.sqrt(np.outer(own, own)), rtol=2e-4)
    np.testing.assert_allclose(
        found.some([1]).hsic["debiased"][0], [[unbiased(a, b) for b in parts[1]] for a in parts[1]], rtol=5e-6
    )


def test_angles_are_of_tokens_not_of_images(e, x):
    found, rows = measure([e], [[x]]).states(), states(e, x)
    unit = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    cosines = np.einsum("snd,tnd->stn", unit, unit).clip(-1, 1)
    np.testing.assert_allclose(found.cosine, cosines.mean(2), atol=1e-6)
    np.testing.assert_allclose(found.angle, np.arccos(cosines).mean(2) / np.pi, atol=3e-4)  # the arc of nearly 1


def test_exact_measures_need_no_more_than_a_part_at_a_time(e, x):
    streamed = Covariances(e)
    for part in np.split(x, 6):
        streamed.add(part)
    rows = states(e, x)
    np.testing.assert_allclose(streamed.cka(), cka(rows), rtol=1e-7)
    q = [np.linalg.qr(y - y.mean(0))[0] for y in rows]
    canonical = np.array([[np.square(a.T @ b).sum() / a.shape[1] for b in q] for a in q])
    np.testing.assert_allclose(streamed.cca(ridge=1e-12), canonical, rtol=1e-5)


def test_two_encoders_are_compared_by_their_rows(e, x):
    other = encoder(1, depth=3, width=24)
    found = measure([e, other], [[x, x]], "mean")
    first, second = states(e, x, "mean"), states(other, x, "mean")
    terms = np.array([[unbiased(a, b) for b in second] for a in first])
    own = [np.array([unbiased(a, a) for a in rows]) for rows in (first, second)]
    np.testing.assert_allclose(found.cka()[:5, 5:], terms / np.sqrt(np.outer(*own)), rtol=2e-4, atol=1e-5)
    assert found.cosine is None


def test_what_fills_no_batch_is_left_out_and_said(e, caplog):
    size = images_at_once([e], "all")
    x = images(size + 3, e.config)
    found = measure([e], [[x]])
    assert found.batches == 1
    assert f"the last 3 images do not fill a batch of {size} and are left out" in caplog.text
    np.testing.assert_array_equal(found.cka(), measure([e], [[x[:size]]]).cka())


@pytest.mark.parametrize(
    ("others", "count", "tokens", "message"),
    [
        ({}, 0, "all", "there are no images"),
        ({}, 3, "mean", "3 images have 3 rows to compare; at least 4 are needed"),
        ({}, 8, "patches", "tokens='patches': must be one of all, mean, cls"),
        ({"class_token": False}, 8, "cls", "pool='cls' is not supported"),
    ],
)
def test_what_cannot_be_compared(others, count, tokens, message):
    e = encoder(**others)
    with pytest.raises(UserError, match=message):
        measure([e], [[images(count, e.config)]], tokens)


def test_encoders_of_other_tokens_do_not_fit(e):
    x = images(8, e.config)
    with pytest.raises(UserError, match="different numbers of tokens"):
        measure([e, encoder(class_token=False)], [[x, x]])
    larger = encoder(image_size=16)
    assert measure([e, larger], [[x, images(8, larger.config)]], "mean").cka().shape == (8, 8)
    with pytest.raises(UserError, match="the encoder takes"):
        measure([e, larger], [[x, x]], "mean")


def test_images_that_are_all_alike_have_no_similarity(e):
    assert np.isnan(measure([e], [[np.ones((8, 8, 8, 3), np.float32)]], "mean").cka()).all()


@pytest.mark.parametrize("exact", [False, True])
def test_states_that_are_not_finite_have_no_similarity(e, x, exact):
    large = dataclasses.replace(e, params=jax.tree.map(lambda p: p * np.float32(1e30), e.params))
    with pytest.raises(UserError, match="some states are not finite"):
        Covariances(large).add(x) if exact else measure([large], [[x]])
