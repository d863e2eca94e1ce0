"""isoFLOP profiles: growth of the optimal parameters with compute, by parabolas and by an unbiased law.

Approach 2 of Hoffmann et al. (2203.15556) fits a parabola in log N to the losses of every compute budget. The true
profile is not a parabola: with a wide or off-centre range of N the resulting exponent is biased, even without noise. A
fit of `A / N^alpha + B / D^beta + E` to the same points is unbiased if its minimum is taken along the actual compute of
the runs: 6 N D, or the counted operations.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scaling.analysis.budgets import SAME, budget_numbers, spans
from scaling.analysis.laws.allocation import best_parameters
from scaling.analysis.laws.cost import CostCurve, cost_curve, lowest
from scaling.analysis.laws.diagnostics import (
    DECADE,
    FEW_GROUPS,
    against_simpler,
    doubts,
    log_errors,
    not_believed,
    residuals,
)
from scaling.analysis.laws.fitting import DELTA, Fit, fit, refits, resamples
from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.intervals import interval
from scaling.analysis.laws.parabolas import Parabolas, parabolas
from scaling.core.errors import UserError

BUDGETS = 4  # fewer budgets say little about an exponent
_OFTEN = 0.05  # share of the resamples that counts as often


@dataclasses.dataclass(frozen=True)
class Profiles:
    """Exponents of N_opt ~ C^exponent.

    Attributes:
      budgets: compute of each profile [b].
      numbers: index of the budget of each run [n].
      parabolas: one parabola per profile, in log N.
      optima: N at which the law is lowest for each budget [b].
      exponents: exponents of the parabolas' vertices and of the law's optima, for all runs and for bootstrap resamples
        drawn within each budget [1 + m, 2]. The law's is beta / (alpha + beta) for a compute of 6 N D.
      fit: the law, fitted to all runs.
      residuals, held_out, simpler, warnings: as in `report.Law`; the largest budget is held out.
    """

    budgets: np.ndarray
    numbers: np.ndarray
    parabolas: Parabolas
    optima: np.ndarray
    exponents: np.ndarray
    fit: Fit
    residuals: dict[str, float]
    held_out: dict[str, float]
    simpler: dict[str, float]
    warnings: tuple[str, ...]

    @property
    def vertices(self) -> np.ndarray:
        """N where each parabola is lowest [b]."""
        return self.parabolas.vertices[0]

    @property
    def parabola(self) -> float:
        """Exponent by the parabolas."""
        return float(self.exponents[0, 0])

    @property
    def law(self) -> float:
        """Exponent by the law."""
        return float(self.exponents[0, 1])

    @property
    def gap(self) -> float:
        """The first minus the second exponent: the bias, if the law is right."""
        return self.parabola - self.law

    def summary(self) -> dict[str, Any]:
        """JSON: both exponents and their gap, with intervals, the vertices, the optima of the law, diagnostics."""
        by_parabola, by_law = self.exponents[1:].T
        drawn = {"parabola": by_parabola, "law": by_law, "gap": by_parabola - by_law}
        parameters = {}
        for name, values in drawn.items():
            low, high = interval(values) if len(values) else (np.nan, np.nan)
            parameters[name] = {"value": getattr(self, name), "low": float(low), "high": float(high)}
        of_budget = zip(self.budgets.tolist(), self.vertices.tolist(), self.optima.tolist(), strict=True)
        return {
            "form": "isoflop",
            "formula": "N_opt ~ C^exponent",
            "parameters": parameters,
            "vertices": [{"compute": c, "parameters": n, "parameters_by_law": by_law} for c, n, by_law in of_budget],
            "law_constants": self.fit.constants,
            "residuals": self.residuals,
            "held_out": self.held_out,
            "aicc_over_this": self.simpler,
            "warnings": list(self.warnings),
        }


def isoflop(
    parameters: ArrayLike,
    samples: ArrayLike,
    losses: ArrayLike,
    compute: ArrayLike | None = None,
    delta: float = DELTA,
    count: int = 0,
    seed: int = 0,
) -> Profiles:
    """Both exponents from runs at a few budgets.

    Args:
      parameters: N [n].
      samples: D [n].
      losses: [n].
      compute: compute of each run [n]; 6 N D by default. A new budget begins where sorted computes rise by over 5
        percent.
      delta: threshold of the Huber loss of the law.
      count: number of bootstrap resamples.
      seed: seed of the resamples.

    Raises:
      UserError: a budget with fewer than three models, or whose parabola has no lowest point; fewer than two budgets.
    """
    n, d, loss = (np.asarray(x, np.float64) for x in (parameters, samples, losses))
    c = 6 * n * d if compute is None else np.asarray(compute, np.float64)
    budget, centres = _budgets(c)
    found = parabolas(n, loss, budget)
    found.check(centres)
    inputs, curve = np.stack([n, d], axis=1), None if compute is None else cost_curve(n, d, c)
    fitted = fit("chinchilla", inputs, loss, delta)
    weights = _resamples(budget, count, seed)
    drawn = [refits(fitted, inputs, loss, weights, delta)] if count else []
    thetas = np.concatenate([fitted.theta[None], *drawn])
    best, at_end = _optima(thetas, fitted, centres, curve)
    vertices = np.concatenate([found.vertices, parabolas(n, loss, budget, weights).vertices])
    exponents = np.stack([_slopes(centres, vertices), _slopes(centres, best)], axis=1)
    left = residuals(fitted, inputs, loss) | {"rms_parabolas": found.rms}
    return Profiles(
        budgets=centres,
        numbers=budget,
        parabolas=found,
        optima=best[0],
        exponents=exponents,
        fit=fitted,
        residuals=left,
        held_out=_held_out(inputs, loss, budget, centres, found, delta),
        simpler=against_simpler(fitted, inputs, loss, delta),
        warnings=(
            *doubts(fitted, inputs, loss, left),
            *(not_believed(fitted, thetas[1:]) if count else []),
            *_wide(c, budget, centres),
            *_doubts(n, budget, centres, vertices, at_end, curve),
        ),
    )


def _budgets(compute: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the budget of each run [n], and the compute in the middle of each budget [b]."""
    numbers = budget_numbers(compute)
    if numbers.max() < 1:
        raise UserError("there is one compute budget; an exponent needs at least two, and four are better")
    return numbers, np.array([np.exp(np.log(compute[numbers == b]).mean()) for b in range(numbers.max() + 1)])


def _wide(compute: np.ndarray, numbers: np.ndarray, centres: np.ndarray) -> list[str]:
    """Warnings for budgets that are not separate: runs with continuously increasing computes."""
    wide = zip(centres, spans(compute, numbers), strict=True)
    return [
        f"the computes of the budget {centre:.3g} spread over a factor of {span:.2f} without a gap: not one budget"
        for centre, span in wide
        if span > (1 + SAME) ** 2
    ]


def _resamples(budget: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Weights of all runs, drawn within each budget. [count, n]."""
    weights = np.zeros((count, len(budget)))
    for b in range(budget.max() + 1):
        rows = np.flatnonzero(budget == b)
        weights[:, rows] = resamples(rows, count, seed + b)
    return weights


def _slopes(budgets: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Slope of log N over log C, of [m, b] -> [m]; nan where a budget has no best N."""
    x = np.log(budgets) - np.log(budgets).mean()
    with np.errstate(all="ignore"):
        return np.log(best) @ x / (x @ x)


def _optima(
    thetas: np.ndarray, fitted: Fit, budgets: np.ndarray, curve: CostCurve | None
) -> tuple[np.ndarray, np.ndarray]:
    """N at which laws are lowest for each budget, and whether it is at an end of the measured range: two arrays [m,
    b].
    """
    if curve is not None:
        return lowest(thetas, fitted.centre, budgets, curve)
    with np.errstate(all="ignore"):  # of a resample that determines nothing
        constants = FORMS["chinchilla"].constants(thetas[:, None], *fitted.centre)
        best = best_parameters(constants, budgets)
    return best, np.zeros(best.shape, bool)


def _held_out(
    inputs: np.ndarray, loss: np.ndarray, budget: np.ndarray, budgets: np.ndarray, found: Parabolas, delta: float
) -> dict[str, float]:
    """Predicts the largest budget from the others: its losses by the law, and its vertex by the line."""
    small = budget < budget.max()
    if len(budgets) < 3 or small.sum() <= len(FORMS["chinchilla"].starts):
        return {}
    line = np.polyfit(np.log(budgets[:-1]), np.log(found.vertices[0, :-1]), 1)
    vertex = np.exp(np.polyval(line, np.log(budgets[-1])))
    return {
        "from_below": float(budgets[-1]),
        **log_errors(fit("chinchilla", inputs, loss, delta, small), inputs[~small], loss[~small]),
        "vertex_over_measured": float(vertex / found.vertices[0, -1]),
    }


def _doubts(
    n: np.ndarray,
    budget: np.ndarray,
    budgets: np.ndarray,
    vertices: np.ndarray,
    at_end: np.ndarray,
    curve: CostCurve | None,
) -> list[str]:
    said = []
    if (share := np.isnan(vertices).any(1).mean()) > _OFTEN:
        said.append(f"in {share:.0%} of the resamples a parabola has no lowest point: they are not counted for it")
    if len(budgets) < BUDGETS:
        said.append(f"{len(budgets)} budgets: an exponent should have {BUDGETS}")
    if budgets[-1] < DECADE * budgets[0]:
        said.append(f"compute spans a factor of {budgets[-1] / budgets[0]:.1f}, less than a decade: do not extrapolate")
    if (fewest := int(np.bincount(budget).min())) < FEW_GROUPS:
        said.append(f"{fewest} runs at a budget are resampled: the intervals say little below {FEW_GROUPS}")
    for b, (c, vertex) in enumerate(zip(budgets, vertices[0], strict=True)):
        low, high = n[budget == b].min(), n[budget == b].max()
        if not low < vertex < high:
            said.append(
                f"the parabola at {c:.3g} is lowest at {vertex:.3g}, outside of its models ({low:g} to {high:g})"
            )
    if at_end[0].any():
        which = ", ".join(f"{c:.3g}" for c in budgets[at_end[0]])
        said.append(f"by the law the best model at {which} is the smallest or the largest there is: measure beyond it")
    elif (share := at_end[1:].any(1).mean() if len(at_end) > 1 else 0.0) > _OFTEN:
        said.append(f"in {share:.0%} of the resamples the best model is the smallest or the largest there is")
    if curve is not None and curve.misfit > SAME:
        said.append(
            f"what a sample costs is off by up to {curve.misfit:.0%} from a smooth curve of parameters: the models "
            "differ in more than their size"
        )
    return said
