"""Significance of several differences under multiple comparisons."""

import numpy as np
from jax.typing import ArrayLike
from scipy import stats


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's adjusted p values [n], in the given order: the level at which each is rejected when all n are tested
    (1979).
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepwise = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepwise, 1)
    return adjusted


def p_of_interval(value: ArrayLike, low: ArrayLike, high: ArrayLike, level: float = 0.95) -> np.ndarray:
    """Two-sided p value of no difference, from a difference and its interval, assuming a normal distribution.

    For rows that have only an interval.
    """
    width = np.asarray(high, np.float64) - np.asarray(low, np.float64)
    deviation = width / (2 * stats.norm.ppf((1 + level) / 2))
    return 2 * stats.norm.sf(np.abs(np.asarray(value, np.float64)) / deviation)
