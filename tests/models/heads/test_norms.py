"""A map is normalised by the statistics of its batch, by running statistics, or by groups of its channels."""

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.models.heads.norms import EPS, MOMENTUM, Norms, updated

X = np.random.default_rng(0).normal(2, 3, (4, 5, 3, 8)).astype(np.float32)
P = {"scale": np.linspace(0.5, 2, 8, dtype=np.float32), "bias": np.linspace(-1, 1, 8, dtype=np.float32)}


def test_batch_statistics_are_those_of_every_image_and_place():
    norms = Norms("batch", 1)
    y = norms("one", P, X)
    expected = (X - X.mean((0, 1, 2))) / np.sqrt(X.var((0, 1, 2)) + EPS) * P["scale"] + P["bias"]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(norms.seen["one"]["variance"], X.var((0, 1, 2), ddof=1), rtol=1e-5)


def test_running_statistics_take_the_place_of_the_batch():
    norms = Norms("batch", 1)
    norms("one", P, X)
    start = {"one": {"mean": np.zeros(8, np.float32), "variance": np.ones(8, np.float32)}}
    kept = updated(start, norms.seen)
    np.testing.assert_allclose(kept["one"]["mean"], MOMENTUM * X.mean((0, 1, 2)), rtol=1e-5)
    later = Norms("batch", 1, kept)
    alone = later("one", P, X[:1])
    np.testing.assert_allclose(alone, later("one", P, X)[:1], atol=1e-6)  # whatever else is in the batch
    assert not later.seen


def test_groups_are_of_one_image():
    y = np.asarray(Norms("group", 4)("one", P, X))
    grouped = X.reshape(4, 5, 3, 4, 2)
    mean, variance = grouped.mean((1, 2, 4), keepdims=True), grouped.var((1, 2, 4), keepdims=True)
    expected = ((grouped - mean) / np.sqrt(variance + EPS)).reshape(X.shape) * P["scale"] + P["bias"]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(y[:1], Norms("group", 4)("one", P, X[:1]), atol=1e-6)


def test_one_value_has_no_variance():
    with pytest.raises(UserError, match=r"task\.norm=group"):
        Norms("batch", 1)("one", P, X[:1, :1, :1])
