"""How parameters and data should grow with compute, in two ways: vertices of parabolas, and the law that has no bias.

Approach 2 of Hoffmann et al. (2203.15556) fits a parabola in log N to the losses of every compute budget. The true
profile is no parabola: with a wide or off-centre range of N the exponent it gives is biased, also without any noise.
The fit of `A / N^alpha + B / D^beta + E` to the same points is not.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from scaling.analysis.laws.fitting import fit
from scaling.errors import UserError


@dataclasses.dataclass(frozen=True)
class Profiles:
    """Exponents of N_opt ~ C^exponent.

    Attributes:
      budgets, vertices: compute of each profile and the N where its parabola is lowest.
      parabola: exponent through the vertices.
      law: beta / (alpha + beta) of the fit to all points.
      gap: the first minus the second: the bias where the law is right.
    """

    budgets: np.ndarray
    vertices: np.ndarray
    parabola: float
    law: float

    @property
    def gap(self) -> float:
        return self.parabola - self.law


def isoflop(parameters: ArrayLike, samples: ArrayLike, losses: ArrayLike, flops_per: float = 6.0) -> Profiles:
    """Both exponents from runs at a few budgets.

    Args:
      parameters: N [n].
      samples: D [n], in the unit in which compute is flops_per * N * D.
      losses: [n].
      flops_per: operations per parameter and sample.

    Raises:
      UserError: a budget with fewer than three models, or whose parabola has no lowest point; fewer than two budgets.
    """
    n, d, loss = (np.asarray(x, np.float64) for x in (parameters, samples, losses))
    budget = np.round(np.log10(flops_per * n * d), 2)
    budgets = np.unique(budget)
    if len(budgets) < 2:
        raise UserError(f"{len(budgets)} compute budgets; an exponent needs two and should have four")
    vertices = np.array([_vertex(n[budget == b], loss[budget == b], 10**b) for b in budgets])
    slope = np.polyfit(budgets, np.log10(vertices), 1)[0]
    constants = fit("chinchilla", np.stack([n, d], axis=1), loss).constants
    return Profiles(10**budgets, vertices, float(slope), constants["N_opt_exponent"])


def _vertex(n: np.ndarray, loss: np.ndarray, budget: float) -> float:
    if len(n) < 3:
        raise UserError(f"the budget {budget:.3g} has {len(n)} models, a parabola needs three")
    middle = np.log(n).mean()
    bend, slope, _ = np.polyfit(np.log(n) - middle, loss, 2)
    if bend <= 0:
        raise UserError(f"the losses at the budget {budget:.3g} have no lowest point between the models")
    return float(np.exp(middle - slope / (2 * bend)))
