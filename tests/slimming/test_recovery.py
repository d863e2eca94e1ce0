"""The closed form of the repair, beside scikit-learn's."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from scaling.slimming.recovery import DAMPING, ROUNDING, ridge


def problem(rows, units, width, branches=1, seed=0):
    random = np.random.default_rng(seed)
    u = random.normal(size=(rows, branches * units)) @ random.normal(size=(branches * units,) * 2) + 1.0
    kernel, bias = random.normal(size=(branches, units, width)), random.normal(size=(branches, width))
    return u, kernel, bias, random.normal(size=(rows, width)) + u[:, :1] ** 2


def output(u, kernel, bias):
    return u @ kernel.reshape(-1, kernel.shape[-1]) + bias.sum(0)


def sums(u, error):
    return {"rows": len(u), "unit": u.sum(0), "error": error.sum(0), "gram": u.T @ u, "cross": u.T @ error}


@settings(max_examples=100, deadline=None)
@example(2, 1, 1, 1, 99)  # units that hardly vary about their mean
@given(st.integers(2, 60), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_the_change_is_that_of_ridge_regression_with_a_free_intercept(rows, units, width, branches, seed):
    u, kernel, bias, target = problem(rows, units, width, branches, seed)
    error = target - output(u, kernel, bias)
    new = output(u, *ridge(kernel, bias, sums(u, error)))
    variance = np.trace(np.cov(u.T, bias=True).reshape(u.shape[1], -1)) / u.shape[1]
    penalty = max(DAMPING * variance, ROUNDING * np.square(u).mean())
    model = Ridge(alpha=penalty * rows).fit(u, error)
    expected = output(u, kernel, bias) + model.predict(u).reshape(error.shape)
    np.testing.assert_allclose(new, expected, atol=1e-4 * np.abs(target).max())


def test_a_right_output_stays_and_units_that_never_vary_are_no_obstacle():
    u, kernel, bias, _ = problem(50, 5, 3)
    u[:, 2] = 0.5
    same = ridge(kernel, bias, sums(u, np.zeros((50, 3))))
    np.testing.assert_allclose(same[0], kernel, rtol=1e-6)
    np.testing.assert_allclose(same[1], bias, rtol=1e-6)
    constant = np.full((50, 5), 0.5)
    kernel2, bias2 = ridge(kernel, bias, sums(constant, np.ones((50, 3))))
    np.testing.assert_allclose(output(constant, kernel2, bias2), output(constant, kernel, bias) + 1, rtol=1e-5)


def test_enough_tokens_find_the_kernel_that_was_lost():
    u, kernel, bias, _ = problem(4000, 5, 3, branches=2)
    lost = kernel + 0.3, bias - 0.2
    found = ridge(kernel, bias, sums(u, output(u, *lost) - output(u, kernel, bias)))
    assert np.abs(output(u, *found) - output(u, *lost)).max() < 0.01 * np.abs(output(u, *lost)).std()
    assert found[0].dtype == found[1].dtype == np.float32


@pytest.mark.parametrize("branches", [1, 3])
def test_the_bias_is_shared_by_the_branches(branches):
    u, kernel, bias, _ = problem(50, 2, 3, branches)
    _, new = ridge(kernel, bias, sums(u, np.ones((50, 3))))
    np.testing.assert_allclose(new, bias + 1 / branches, rtol=1e-5)
