"""Parabolas in log N through the losses of every compute budget, of all bootstrap resamples at once."""

import dataclasses

import numpy as np

from scaling.errors import UserError

_TRIES = 20  # times as many resamples as were asked for, before fewer are returned


@dataclasses.dataclass(frozen=True)
class Parabolas:
    """loss = bend x^2 + slope x + level with x = log N - middle, of m weightings of the runs at b budgets.

    Attributes:
      coefficients: bend, slope, level [m, b, 3].
      middles: mean log N at each budget [b].
      models: different N that count [m, b].
      rms: of the residuals of the first weighting, in log units.
    """

    coefficients: np.ndarray
    middles: np.ndarray
    models: np.ndarray
    rms: float

    @property
    def vertices(self) -> np.ndarray:
        """N where each is lowest [m, b]; nan where it has no lowest point."""
        bend, slope, _ = np.moveaxis(self.coefficients, -1, 0)
        lowest = (bend > 0) & (self.models >= 3)
        return np.where(lowest, np.exp(self.middles - slope / (2 * np.where(lowest, bend, 1.0))), np.nan)

    def check(self, budgets: np.ndarray) -> None:
        """Raises a UserError where the first weighting has no lowest point at one of the budgets [b]."""
        for budget, models, vertex in zip(budgets, self.models[0], self.vertices[0], strict=True):
            if models < 3:
                raise UserError(
                    f"the budget {budget:.3g} has {models} models, a parabola needs three; runs share one where 6 N D "
                    "(or compute, a third field of --x) is the same to 5 percent"
                )
            if np.isnan(vertex):
                raise UserError(f"the losses at the budget {budget:.3g} have no lowest point between the models")


def parabolas(n: np.ndarray, loss: np.ndarray, budget: np.ndarray, weights: np.ndarray | None = None) -> Parabolas:
    """Weighted least squares at every budget.

    Args:
      n: parameters of each run [n].
      loss: [n].
      budget: number of each run's budget, from 0 [n].
      weights: how often each run counts [m, n]; once by default.
    """
    weights = np.ones((1, len(n))) if weights is None else weights
    coefficients, middles, models = [], [], []
    errors = np.zeros(len(n))
    for b in range(budget.max() + 1):
        rows = budget == b
        names, which = np.unique(n[rows], return_inverse=True)
        models.append((weights[:, rows] @ np.eye(len(names))[which] > 0).sum(1))
        middles.append(np.log(n[rows]).mean())
        matrix = np.vander(np.log(n[rows]) - middles[-1], 3)
        moments = np.einsum("mr,ri,rj->mij", weights[:, rows], matrix, matrix)
        right = np.einsum("mr,ri,r->mi", weights[:, rows], matrix, loss[rows])
        moments[models[-1] < 3] = np.eye(3)  # which no parabola goes through
        coefficients.append(np.linalg.solve(moments, right[..., None])[..., 0])
        if len(weights):
            errors[rows] = matrix @ coefficients[-1][0] / loss[rows] - 1
    rms = float(np.sqrt(np.mean(errors**2)))
    return Parabolas(np.stack(coefficients, axis=1), np.array(middles), np.stack(models, axis=1), rms)


def resamples(n: np.ndarray, loss: np.ndarray, budget: np.ndarray, count: int, seed: int) -> np.ndarray:
    """How often every run counts, drawn within its budget; only where every parabola has a lowest point. [count, n]."""
    rng, kept = np.random.default_rng(seed), np.zeros((0, len(n)))
    for _ in range(_TRIES):
        if len(kept) >= count:
            break
        weights = np.zeros((count, len(n)))
        for b in range(budget.max() + 1):
            rows = np.flatnonzero(budget == b)
            weights[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=count)
        good = np.isfinite(parabolas(n, loss, budget, weights).vertices).all(1)
        kept = np.concatenate([kept, weights[good]])
    return kept[:count]
