"""A ratio of two differences that are measured with error: where it may lie."""

import numpy as np
from scipy import stats

from scaling.evaluation.scores import Interval


def fieller_interval(numerator: float, denominator: float, covariance: np.ndarray, level: float = 0.95) -> Interval:
    """Fieller's interval (1954) of numerator / denominator, both normal.

    Args:
      numerator, denominator: as they were estimated.
      covariance: [2, 2], of the two, as of their bootstrap replicates.
      level: share of such intervals that hold the true ratio.

    Returns:
      Both ends; None, None where the denominator is not different from zero at this level: then the ratio may be
      anything, whatever was estimated.
    """
    z = stats.norm.ppf((1 + level) / 2)
    (a, c), (_, b) = np.asarray(covariance, np.float64) * z**2
    lead, middle, last = denominator**2 - b, numerator * denominator - c, numerator**2 - a
    if lead <= 0:
        return None, None
    root = np.sqrt(max(middle**2 - lead * last, 0.0))
    return float((middle - root) / lead), float((middle + root) / lead)
