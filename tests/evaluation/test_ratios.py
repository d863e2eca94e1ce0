"""Fieller's interval holds the ratio as often as it says, also where the denominator is small."""

import numpy as np
import pytest

from scaling.evaluation.ratios import fieller_interval

COVARIANCE = np.array([[0.03**2, 0.5 * 0.03 * 0.025], [0.5 * 0.03 * 0.025, 0.025**2]])


@pytest.mark.parametrize("denominator", [0.3, 0.1, 0.04])
def test_it_covers_the_true_ratio(denominator):
    true, rng = 0.7, np.random.default_rng(0)
    estimates = rng.multivariate_normal([true * denominator, denominator], COVARIANCE, size=4000)
    found = [fieller_interval(*estimate, COVARIANCE, 0.9) for estimate in estimates]
    held = [low is None or low <= true <= high for low, high in found]
    unbounded = np.mean([low is None for low, _ in found])
    assert unbounded == pytest.approx({0.3: 0, 0.1: 0.01, 0.04: 0.52}[denominator], abs=0.03)
    if unbounded < 0.05:
        assert np.mean(held) == pytest.approx(0.9, abs=0.015)
    else:
        assert np.mean(held) >= 0.9


def test_ends_are_where_the_difference_is_just_not_zero():
    low, high = fieller_interval(0.06, 0.1, COVARIANCE)
    assert low < 0.6 < high
    for ratio in (low, high):
        weights = np.array([1, -ratio])
        assert abs(0.06 - ratio * 0.1) == pytest.approx(1.959964 * np.sqrt(weights @ COVARIANCE @ weights), rel=1e-5)


def test_a_denominator_that_may_be_zero_leaves_the_ratio_open():
    assert fieller_interval(0.1, 1.95 * 0.025, COVARIANCE) == (None, None)
    assert fieller_interval(0.1, 1.97 * 0.025, COVARIANCE)[0] is not None


def test_a_ratio_without_error_is_itself():
    low, high = fieller_interval(0.3, 0.6, np.zeros((2, 2)))
    assert (low, high) == pytest.approx((0.5, 0.5))
