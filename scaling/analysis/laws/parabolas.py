"""Parabolas in log N through the losses of every compute budget, for all bootstrap resamples at once."""

import dataclasses

import numpy as np

from scaling.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Parabolas:
    """loss = bend x^2 + slope x + level with x = log N - middle, of m weightings of the runs at b budgets.

    Attributes:
      coefficients: bend, slope, level [m, b, 3].
      middles: mean log N at each budget [b].
      models: different N at each budget [b].
      rms: root mean square of the residuals of the first weighting, in log units.
    """

    coefficients: np.ndarray
    middles: np.ndarray
    models: np.ndarray
    rms: float

    @property
    def vertices(self) -> np.ndarray:
        """N at the minimum of each parabola [m, b]; nan if it has none."""
        bend, slope, _ = np.moveaxis(self.coefficients, -1, 0)
        with np.errstate(over="ignore"):  # of a resample that determines nothing
            return np.where(bend > 0, np.exp(self.middles - slope / (2 * np.where(bend > 0, bend, 1.0))), np.nan)

    def check(self, budgets: np.ndarray) -> None:
        """Raises a UserError if the first weighting has no minimum at one of the budgets [b]."""
        for budget, models, vertex in zip(budgets, self.models, self.vertices[0], strict=True):
            if models < 3:
                raise UserError(
                    f"the budget {budget:.3g} has {models} models, and a parabola needs three; runs share a budget if "
                    "6 N D "
                    "(or compute, a third field of --x) is the same to 5 percent"
                )
            if np.isnan(vertex):
                raise UserError(
                    f"the losses at the budget {budget:.3g} have no minimum between the smallest and the largest model"
                )


def parabolas(n: np.ndarray, loss: np.ndarray, budget: np.ndarray, weights: np.ndarray | None = None) -> Parabolas:
    """Weighted least squares at every budget.

    Args:
      n: parameters of each run [n].
      loss: [n].
      budget: number of each run's budget, from 0 [n].
      weights: how much each run counts [m, n]; the same by default.
    """
    weights = np.ones((1, len(n))) if weights is None else weights
    coefficients, middles, models = [], [], []
    errors = np.zeros(len(n))
    for b in range(budget.max() + 1):
        rows = budget == b
        models.append(len(np.unique(n[rows])))
        middles.append(np.log(n[rows]).mean())
        matrix, root = np.vander(np.log(n[rows]) - middles[-1], 3), np.sqrt(weights[:, rows])
        inverse = np.linalg.pinv(root[:, :, None] * matrix)  # [m, 3, r]; of two models the flattest through both
        coefficients.append(np.einsum("mir,mr->mi", inverse, root * loss[rows]))
        if len(weights):
            errors[rows] = matrix @ coefficients[-1][0] / loss[rows] - 1
    rms = float(np.sqrt(np.mean(errors**2)))
    return Parabolas(np.stack(coefficients, axis=1), np.array(middles), np.array(models), rms)
