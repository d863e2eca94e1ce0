"""Runs of nearly equal compute share a budget, for the figure of a sweep as for a law."""

import numpy as np
import pytest

from scaling.analysis.budgets import budget_numbers, spans


def test_a_budget_begins_where_sorted_computes_rise_by_more_than_5_percent():
    compute = np.array([2.0, 1.0, 2.08, 1.04, 4.0, 1.02])
    numbers = budget_numbers(compute)
    assert numbers.tolist() == [1, 0, 1, 0, 2, 0]
    assert spans(compute, numbers) == pytest.approx([1.04, 1.04, 1.0])
    assert budget_numbers(np.array([3.0])).tolist() == [0]


def test_computes_that_follow_each_other_are_one_budget_that_reaches_far():
    compute = 1.04 ** np.arange(10)
    assert budget_numbers(compute).max() == 0
    assert spans(compute, budget_numbers(compute)) == pytest.approx([1.04**9])
