"""Percentile intervals of resamples."""

import numpy as np

LEVEL = 95.0  # percent, of every interval


def interval(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval along the first axis, over resamples that are not NaN; with infinite values it may end in
    infinity.
    """
    shape, columns = x.shape[1:], np.asarray(x, np.float64).reshape(len(x), -1).T
    ends = np.array([_ends(column[~np.isnan(column)]) for column in columns]).T
    return ends[0].reshape(shape), ends[1].reshape(shape)


def _ends(x: np.ndarray) -> tuple[float, float]:
    if not len(x):
        return float("nan"), float("nan")
    at = [(100 - LEVEL) / 2, (100 + LEVEL) / 2]
    if np.isfinite(x).all():
        low, high = np.percentile(x, at)
    else:  # a finite and an infinite value cannot be interpolated
        low, high = np.percentile(x, at, method="nearest")
    return float(low), float(high)
