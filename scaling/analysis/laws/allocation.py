"""How a budget of compute is best divided between parameters and samples, by a fitted Chinchilla law."""

import dataclasses

import numpy as np

from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.report import Law, interval
from scaling.errors import UserError


@dataclasses.dataclass(frozen=True)
class Allocation:
    """The best division of one budget, each with its 95 % interval.

    Attributes:
      compute: the budget.
      parameters, samples, loss: (value, low, high).
    """

    compute: float
    parameters: tuple[float, float, float]
    samples: tuple[float, float, float]
    loss: tuple[float, float, float]


def allocate(law: Law, compute: float, flops_per: float = 6.0) -> Allocation:
    """N and D that minimise A / N^alpha + B / D^beta + E under compute = flops_per * N * D (Hoffmann et al.,
    2203.15556, equation 4).

    Args:
      law: fitted to the form chinchilla.
      compute: in the unit of flops_per * N * D.
      flops_per: operations per parameter and sample.

    Raises:
      UserError: a law of another form, or a budget that is not positive.
    """
    if law.fit.form != "chinchilla":
        raise UserError(f"a budget is divided by a law of the form chinchilla, not {law.fit.form}")
    if not compute > 0:
        raise UserError(f"a budget of {compute:g} cannot be divided; it must be positive")
    thetas = np.concatenate([law.fit.theta[None], law.thetas])
    k = {name: np.asarray(x) for name, x in FORMS["chinchilla"].constants(thetas, *law.fit.centre).items()}
    alpha, beta = k["alpha"], k["beta"]
    ratio = (alpha * k["A"] / (beta * k["B"])) ** (1 / (alpha + beta))
    parameters = ratio * (compute / flops_per) ** (beta / (alpha + beta))
    samples = compute / flops_per / parameters
    losses = k["A"] / parameters**alpha + k["B"] / samples**beta + k["E"]
    return Allocation(compute, *(_with_interval(x) for x in (parameters, samples, losses)))


def _with_interval(x: np.ndarray) -> tuple[float, float, float]:
    low, high = interval(x[1:])
    return float(x[0]), float(low), float(high)
