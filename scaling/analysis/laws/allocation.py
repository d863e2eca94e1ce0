"""The optimal division of a compute budget between parameters and samples, by a fitted Chinchilla law."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.intervals import interval
from scaling.analysis.laws.report import Law
from scaling.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Allocation:
    """The best division of one budget, each with its 95 % interval.

    Attributes:
      compute: the budget.
      parameters, samples, loss: (value, low, high).
      beyond: factor by which parameters or samples exceed the measured range; 1 inside it.
    """

    compute: float
    parameters: tuple[float, float, float]
    samples: tuple[float, float, float]
    loss: tuple[float, float, float]
    beyond: float


def best_parameters(
    constants: Mapping[str, np.ndarray], compute: np.ndarray | float, flops_per: float = 6.0
) -> np.ndarray:
    """N that minimises A / N^alpha + B / D^beta under compute = flops_per * N * D (Hoffmann et al., 2203.15556,
    equation 4); the constants and the compute are broadcast.
    """
    a, b, alpha, beta = (np.asarray(constants[name]) for name in ("A", "B", "alpha", "beta"))
    ratio = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    return ratio * (compute / flops_per) ** (beta / (alpha + beta))


def allocate(law: Law, compute: float, flops_per: float = 6.0) -> Allocation:
    """N and D that minimise the law for a budget, see `best_parameters`.

    Args:
      law: a law of the form chinchilla.
      compute: budget, in the unit of flops_per * N * D.
      flops_per: operations per parameter and sample.

    Raises:
      UserError: a law of another form, one that does not decrease in both, or whose slopes the rows do not determine; a
        budget that is not positive.
    """
    if law.fit.form != "chinchilla":
        raise UserError(f"a budget can only be divided by a law of the form chinchilla, not {law.fit.form}")
    if not 0 < compute < np.inf:
        raise UserError(f"a budget of {compute:g} cannot be divided; it must be positive")
    if {"alpha", "beta"} & set(law.undetermined):
        raise UserError("the rows do not determine both exponents, so no allocation of a budget is optimal")
    if min(law.fit.constants["alpha"], law.fit.constants["beta"]) <= 0:
        raise UserError(
            "the fitted law does not decrease in both parameters and samples, so no allocation of a budget is optimal"
        )
    thetas = np.concatenate([law.fit.theta[None], law.thetas])
    with np.errstate(all="ignore"):  # degenerate resamples
        k = {name: np.asarray(x) for name, x in FORMS["chinchilla"].constants(thetas, *law.fit.centre).items()}
        parameters = best_parameters(k, compute, flops_per)
        samples = compute / flops_per / parameters
        losses = k["A"] / parameters ** k["alpha"] + k["B"] / samples ** k["beta"] + k["E"]
    beyond = float(law.beyond([[parameters[0], samples[0]]])[0])
    return Allocation(compute, _with_interval(parameters), _with_interval(samples), _with_interval(losses), beyond)


def _with_interval(x: np.ndarray) -> tuple[float, float, float]:
    low, high = interval(x[1:])
    return float(x[0]), float(low), float(high)
