"""Interval of a ratio of two quantities that are measured with error."""

import numpy as np
from scipy import stats

from scaling.evaluation.scores import Interval


def fieller_interval(numerator: float, denominator: float, covariance: np.ndarray, level: float = 0.95) -> Interval:
    """Fieller's interval (1954) of numerator / denominator, both normal.

    Args:
      numerator, denominator: estimates.
      covariance: [2, 2], covariance of the two, for example of their bootstrap replicates.
      level: share of such intervals that contain the true ratio.

    Returns:
      Both ends; None, None if the denominator does not differ from zero at this level, in which case the ratio is
      unbounded.
    """
    z = stats.norm.ppf((1 + level) / 2)
    (a, c), (_, b) = np.asarray(covariance, np.float64) * z**2
    lead, middle, last = denominator**2 - b, numerator * denominator - c, numerator**2 - a
    if lead <= 0:
        return None, None
    root = np.sqrt(max(middle**2 - lead * last, 0.0))
    return float((middle - root) / lead), float((middle + root) / lead)
