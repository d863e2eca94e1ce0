"""The minimum of a law of parameters and samples for a compute budget, if a sample does not cost 6 N operations.

The closed form of the best N (Hoffmann et al., 2203.15556, equation 4) requires compute proportional to N D. With a
decoder of fixed size, an embedding or attention it is not, and the cost of a sample is taken from the runs.
"""

import dataclasses

import numpy as np
import scipy.optimize

_GRID = 2000  # grid points between the smallest and the largest model
_POWERS = np.array([0.0, 0.5, 1.0])


@dataclasses.dataclass(frozen=True)
class CostCurve:
    """Operations per sample of a model of N parameters, a sum of multiples of 1, N^1/2 and N.

    Parameters and operations are both quadratic in the width of a model and linear in its depth. A curve through every
    run would have a kink at each of them, which would attract the optimum.

    Attributes:
      multiples: non-negative [3].
      smallest, largest: smallest and largest N of the fitted models.
      misfit: largest relative error at these models.
    """

    multiples: np.ndarray
    smallest: float
    largest: float
    misfit: float

    def __call__(self, parameters: np.ndarray) -> np.ndarray:
        """Operations per sample at N [n] -> [n]."""
        return _powers(parameters) @ self.multiples


def cost_curve(parameters: np.ndarray, samples: np.ndarray, compute: np.ndarray) -> CostCurve:
    """The curve with the smallest relative error for runs with these parameters, samples and operations, each [n]."""
    unit, cost = np.exp(np.log(parameters).mean()), compute / samples
    multiples, _ = scipy.optimize.nnls(_powers(parameters / unit) / cost[:, None], np.ones(len(cost)))
    multiples = multiples / unit**_POWERS
    misfit = np.abs(_powers(parameters) @ multiples / cost - 1).max()
    return CostCurve(multiples, float(parameters.min()), float(parameters.max()), float(misfit))


def lowest(
    thetas: np.ndarray, centre: tuple[np.ndarray, float], budgets: np.ndarray, curve: CostCurve
) -> tuple[np.ndarray, np.ndarray]:
    """The best number of parameters for each budget, between the smallest and the largest model.

    Args:
      thetas: parameter vectors of laws of the form chinchilla [m, 5].
      centre: their centre, see `fitting.Fit`.
      budgets: compute budgets [b].
      curve: cost of a sample.

    Returns:
      N, and whether it is the smallest or the largest model (the optimum may then be outside): two arrays [m, b].
    """
    logs = np.linspace(np.log(curve.smallest), np.log(curve.largest), _GRID)
    x, cost = logs - centre[0][0], np.log(curve(np.exp(logs)))
    a, alpha, b, beta = (column[:, None] for column in thetas.T[:4])
    found, rows = [], np.arange(len(thetas))
    with np.errstate(over="ignore"):  # degenerate resamples
        of_parameters = np.exp(a - alpha * x)
        for budget in budgets:
            loss = of_parameters + np.exp(b - beta * (np.log(budget) - cost - centre[0][1]))
            at = loss.argmin(1)
            inner = at.clip(1, _GRID - 2)
            left, middle, right = (loss[rows, inner + i] for i in (-1, 0, 1))
            bend = left - 2 * middle + right
            between = np.where((at == inner) & (bend > 0), (left - right) / 2 / np.where(bend > 0, bend, 1), 0.0)
            found.append((logs[at] + between * (logs[1] - logs[0]), at != inner))
    best, at_end = (np.stack(z, axis=1) for z in zip(*found, strict=True))
    return np.exp(best), at_end


def _powers(parameters: np.ndarray) -> np.ndarray:
    return parameters[:, None] ** _POWERS
