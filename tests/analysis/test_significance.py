"""Holm's procedure and p values of intervals, against their definitions."""

import numpy as np
import pytest
from scipy import stats

from scaling.analysis.significance import holm, p_of_interval


def rejected_by_definition(p, level):
    """Holm (1979) as it is written: from the smallest on, each against level / (how many are left)."""
    left, fallen = sorted(range(len(p)), key=lambda i: p[i]), set()
    while left and p[left[0]] <= level / len(left):
        fallen.add(left.pop(0))
    return fallen


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_what_falls_at_a_level_is_what_the_procedure_rejects_at_it(count):
    p = np.random.default_rng(count).random(count) ** 3
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= 1).all()
    for level in (0.001, 0.01, 0.05, 0.2, 0.9):
        assert set(np.flatnonzero(adjusted <= level)) == rejected_by_definition(p, level)


def test_holm_of_one_test_is_the_test_itself():
    assert holm([0.03]).tolist() == [0.03]
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])


def test_an_interval_that_touches_zero_has_the_p_value_of_its_level():
    for level in (0.9, 0.95):
        assert p_of_interval(1.0, 0.0, 2.0, level) == pytest.approx(1 - level)
    half = stats.norm.ppf(0.975)
    np.testing.assert_allclose(
        p_of_interval([3.0, -3.0], [3 - half, -3 - half], [3 + half, -3 + half]), 0.0027, atol=5e-5
    )
