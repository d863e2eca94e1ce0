"""How parameters and data should grow with compute, in two ways: vertices of parabolas, and the law that has no bias.

Approach 2 of Hoffmann et al. (2203.15556) fits a parabola in log N to the losses of every compute budget. The true
profile is no parabola: with a wide or off-centre range of N the exponent it gives is biased, also without any noise.
The fit of `A / N^alpha + B / D^beta + E` to the same points is not.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scaling.analysis.laws.fitting import fit, refits
from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.report import interval
from scaling.errors import UserError


@dataclasses.dataclass(frozen=True)
class Profiles:
    """Exponents of N_opt ~ C^exponent.

    Attributes:
      budgets, vertices: compute of each profile and the N where its parabola is lowest.
      parabola: exponent through the vertices.
      law: beta / (alpha + beta) of the fit to all points.
      resampled: both exponents of bootstrap resamples [m, 2], drawn within each budget.
    """

    budgets: np.ndarray
    vertices: np.ndarray
    parabola: float
    law: float
    resampled: np.ndarray

    @property
    def gap(self) -> float:
        """The first minus the second: the bias where the law is right."""
        return self.parabola - self.law

    def summary(self) -> dict[str, Any]:
        """JSON: both exponents and their gap, with intervals, and the vertices."""
        drawn = {"parabola": self.resampled[:, 0], "law": self.resampled[:, 1]}
        drawn["gap"] = drawn["parabola"] - drawn["law"]
        parameters = {}
        for name, values in drawn.items():
            low, high = interval(values) if len(values) else (np.nan, np.nan)
            parameters[name] = {"value": getattr(self, name), "low": float(low), "high": float(high)}
        vertices = [
            {"compute": float(b), "parameters": float(n)} for b, n in zip(self.budgets, self.vertices, strict=True)
        ]
        return {"form": "isoflop", "formula": "N_opt ~ C^exponent", "parameters": parameters, "vertices": vertices}


def isoflop(
    parameters: ArrayLike,
    samples: ArrayLike,
    losses: ArrayLike,
    compute: ArrayLike | None = None,
    count: int = 0,
    seed: int = 0,
) -> Profiles:
    """Both exponents from runs at a few budgets.

    Args:
      parameters: N [n].
      samples: D [n].
      losses: [n].
      compute: of each run [n]; 6 N D by default. Runs whose computes agree to one percent share a budget.
      count: bootstrap resamples; one that leaves a budget without a lowest point is drawn again.
      seed: of them.

    Raises:
      UserError: a budget with fewer than three models, or whose parabola has no lowest point; fewer than two budgets.
    """
    n, d, loss = (np.asarray(x, np.float64) for x in (parameters, samples, losses))
    c = 6 * n * d if compute is None else np.asarray(compute, np.float64)
    budget = _budgets(c)
    if budget.max() < 1:
        raise UserError("one compute budget; an exponent needs two and should have four")
    centres = np.array([np.exp(np.log(c[budget == b]).mean()) for b in range(budget.max() + 1)])
    vertices = _vertices(n, loss, budget, centres)
    fitted = fit("chinchilla", np.stack([n, d], axis=1), loss)
    weights = _resamples(n, loss, budget, centres, count, seed)
    thetas = refits(fitted, np.stack([n, d], axis=1), loss, weights) if count else np.zeros((0, len(fitted.theta)))
    laws = FORMS["chinchilla"].constants(thetas, *fitted.centre)["N_opt_exponent"]
    parabolas = [_slope(centres, _vertices(n, loss, budget, centres, w)) for w in weights]
    resampled = np.stack([np.array(parabolas, np.float64), laws], axis=1)
    return Profiles(centres, vertices, _slope(centres, vertices), fitted.constants["N_opt_exponent"], resampled)


def _budgets(compute: np.ndarray) -> np.ndarray:
    """The number of the budget of each run, from the smallest: a new one begins where compute rises by over 5 %."""
    order = np.argsort(compute)
    steps = np.diff(np.log(compute[order])) > np.log(1.05)
    numbers = np.empty(len(compute), int)
    numbers[order] = np.concatenate([[0], np.cumsum(steps)])
    return numbers


def _slope(budgets: np.ndarray, vertices: np.ndarray) -> float:
    return float(np.polyfit(np.log(budgets), np.log(vertices), 1)[0])


def _resamples(
    n: np.ndarray, loss: np.ndarray, budget: np.ndarray, centres: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """How often every run counts, drawn within its budget. [count, runs]."""
    rng, kept = np.random.default_rng(seed), np.zeros((0, len(n)))
    for _ in range(20 * count):
        if len(kept) == count:
            break
        weights = np.zeros(len(n))
        for b in range(len(centres)):
            rows = np.flatnonzero(budget == b)
            np.add.at(weights, rng.choice(rows, len(rows)), 1)
        try:
            _vertices(n, loss, budget, centres, weights)
        except UserError:
            continue
        kept = np.concatenate([kept, weights[None]])
    return kept


def _vertices(
    n: np.ndarray, loss: np.ndarray, budget: np.ndarray, centres: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    weights = np.ones(len(n)) if weights is None else weights
    return np.array(
        [
            _vertex(n[rows], loss[rows], weights[rows], c)
            for c, rows in ((c, budget == b) for b, c in enumerate(centres))
        ]
    )


def _vertex(n: np.ndarray, loss: np.ndarray, weights: np.ndarray, budget: float) -> float:
    there = weights > 0
    if len(np.unique(n[there])) < 3:
        raise UserError(f"the budget {budget:.3g} has {there.sum()} models, a parabola needs three")
    middle = np.log(n).mean()
    bend, slope, _ = np.polyfit(np.log(n) - middle, loss, 2, w=np.sqrt(weights))
    if bend <= 0:
        raise UserError(f"the losses at the budget {budget:.3g} have no lowest point between the models")
    return float(np.exp(middle - slope / (2 * bend)))
