import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import linregress
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from scaling.core.errors import UserError
from scaling.evaluation.spectra import (
    Moments,
    accumulate,
    explained_variance,
    explained_variance_slope,
    mean_feature_correlation,
    participation_ratio,
)


def features(samples=500, width=24, seed=0):
    """Correlated features of different scales, far from zero."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(samples, width)) @ rng.normal(size=(width, width)) * rng.uniform(0.1, 9, width)
    return (mixed + rng.normal(0, 50, width)).astype(np.float32)


def digits():
    """Real images, 1797 x 64; three of the pixels are never lit."""
    return load_digits().data.astype(np.float32)


DATA = {"random": features(), "digits": digits(), "fewer samples than features": features(20, 64)}


@pytest.fixture(params=DATA.values(), ids=DATA)
def x(request):
    return request.param


def batches(x, size):
    return (x[i : i + size] for i in range(0, len(x), size))


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_batches_add_up_to_the_covariance_of_all_samples(x, size):
    m = accumulate(batches(x, size))
    exact = x.astype(np.float64)
    assert m.count == len(x)
    np.testing.assert_allclose(m.mean, exact.mean(0), rtol=1e-12, atol=1e-12)
    covariance = np.cov(exact.T)
    np.testing.assert_allclose(m.scatter / (len(x) - 1), covariance, rtol=0, atol=1e-12 * np.abs(covariance).max())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_any_partition_in_any_order_gives_the_same_moments(sizes, width, seed):
    x = features(sum(sizes), width, seed)
    parts = [Moments.of(part) for part in np.split(x, np.cumsum(sizes)[:-1])]
    forward, backward, whole = sum(parts[1:], parts[0]), sum(parts[-2::-1], parts[-1]), Moments.of(x)
    for m in (forward, backward):
        assert m.count == whole.count
        np.testing.assert_allclose(m.mean, whole.mean, rtol=1e-10)
        np.testing.assert_allclose(m.scatter, whole.scatter, rtol=1e-9, atol=1e-9 * np.abs(whole.scatter).max() + 1e-12)


def test_a_large_mean_does_not_drown_the_variance():
    """A sum of squares minus a squared sum would have no digit left here."""
    x = np.random.default_rng(0).normal(size=(1000, 3)) + 1e8
    np.testing.assert_allclose(accumulate(batches(x, 13)).scatter / 999, np.cov(x.T), rtol=1e-6, atol=1e-6)


def test_mean_feature_correlation_is_that_of_numpy(x):
    varying = x[:, x.std(0) > 0].astype(np.float64)
    correlation = np.corrcoef(varying.T)
    pairs = [abs(correlation[i, j]) for i in range(len(correlation)) for j in range(i)]
    assert mean_feature_correlation(accumulate(batches(x, 64))) == pytest.approx(np.mean(pairs), rel=1e-10)


def test_explained_variance_is_that_of_scikit_learn(x):
    shares, pca = explained_variance(accumulate(batches(x, 64))), PCA(svd_solver="full").fit(x.astype(np.float64))
    rank = np.linalg.matrix_rank(x.astype(np.float64) - x.astype(np.float64).mean(0))
    assert len(shares) == rank
    np.testing.assert_allclose(shares, pca.explained_variance_ratio_[:rank], rtol=1e-6, atol=1e-14)
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("components", [2, 5, 19])
def test_slope_is_the_regression_of_the_logarithms(x, components):
    ratio = PCA(svd_solver="full").fit(x.astype(np.float64)).explained_variance_ratio_[:components]
    expected = linregress(np.log(np.arange(1, components + 1)), np.log(ratio)).slope
    assert explained_variance_slope(accumulate(batches(x, 64)), components) == pytest.approx(expected, rel=1e-7)


def test_a_power_law_has_its_exponent_as_slope():
    noise = np.random.default_rng(0).normal(size=(200, 16))
    basis, _ = np.linalg.qr(noise - noise.mean(0))  # orthonormal columns without a mean
    x = basis * np.arange(1, 17) ** -0.75  # variance i^-1.5
    assert explained_variance_slope(Moments.of(x), 16) == pytest.approx(-1.5)
    assert explained_variance_slope(Moments.of(x), 4) == pytest.approx(-1.5)


def test_participation_ratio_is_that_of_the_eigenvalues(x):
    eigenvalues = PCA(svd_solver="full").fit(x.astype(np.float64)).explained_variance_
    expected = eigenvalues.sum() ** 2 / np.square(eigenvalues).sum()
    assert participation_ratio(accumulate(batches(x, 64))) == pytest.approx(expected, rel=1e-10)


def test_participation_ratio_counts_equal_directions():
    corners = np.concatenate([np.eye(8), -np.eye(8)])
    assert participation_ratio(Moments.of(corners)) == pytest.approx(8)
    assert participation_ratio(Moments.of(corners[:, :1])) == 1
    assert participation_ratio(Moments.of(np.outer(corners[:, 0], [1.0, 2.0, 3.0]))) == pytest.approx(1)


def test_copies_of_one_feature_correlate_fully_and_constants_do_not_take_part():
    first = np.random.default_rng(0).normal(size=50)
    x = np.stack([first, -3 * first + 1, np.full(50, 0.1)], 1)
    assert mean_feature_correlation(accumulate(batches(x, 3))) == pytest.approx(1)


@pytest.mark.parametrize(
    ("statistic", "x", "message"),
    [
        (mean_feature_correlation, features(50, 1), "1 of 1 features vary; a correlation needs two"),
        (mean_feature_correlation, np.full((50, 4), 0.1), "0 of 4 features vary"),
        (mean_feature_correlation, features(1, 4), "0 of 4 features vary"),
        (explained_variance, np.full((50, 4), 0.1), "all features are constant over the 50 samples"),
        (participation_ratio, features(1, 4), "all features are constant over the 1 samples"),
        (lambda m: explained_variance_slope(m, 1), features(), "components=1: a slope needs at least 2"),
        (lambda m: explained_variance_slope(m, 25), features(), "25, but 500 samples of 24 features .* 24 directions"),
        (lambda m: explained_variance_slope(m, 20), features(20, 64), "20 samples of 64 features .* 19 directions"),
        (lambda m: explained_variance_slope(m, 62), digits(), "1797 samples of 64 features .* 61 directions"),
    ],
)
def test_what_has_no_answer_is_refused(statistic, x, message):
    m = accumulate(batches(x, 7))
    with pytest.raises(UserError, match=message):
        statistic(m)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "there are no features"),
        ([np.zeros(3)], r"features of shape \[3\]"),
        ([np.zeros((0, 3))], r"features of shape \[0, 3\]"),
        ([np.array([[1.0, np.nan]])], "NaN or infinity"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "a batch has 4 features, the ones before it have 3"),
    ],
)
def test_what_are_no_features_is_refused(parts, message):
    with pytest.raises(UserError, match=message):
        accumulate(parts)
