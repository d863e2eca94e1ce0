"""Variable projection: for given exponents a law is linear in its other constants, so only the exponents are searched.

The sum of squared relative errors is minimised. The result is close to that of `fitting.fit`, which minimises the Huber
loss of log residuals, but is found in another way: if the two differ much, the constants are not determined.
"""

import itertools
from collections.abc import Callable

import numpy as np
import scipy.optimize
from numpy.typing import ArrayLike

from scaling.analysis.laws.fitting import columns
from scaling.analysis.laws.forms import FORMS
from scaling.core.errors import UserError

# form: names of the exponents, names of the linear constants, and the columns these multiply. Inputs are in units of
# their geometric mean, which keeps the columns well apart.
LINEAR: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[np.ndarray, np.ndarray], list[np.ndarray]]]] = {
    "power": (("b",), ("a", "c"), lambda x, e: [x[:, 0] ** -e[0], np.ones(len(x))]),
    "chinchilla": (
        ("alpha", "beta"),
        ("A", "B", "E"),
        lambda x, e: [x[:, 0] ** -e[0], x[:, 1] ** -e[1], np.ones(len(x))],
    ),
}
_GRID = np.arange(0.05, 2.0, 0.1)


def project(form: str, inputs: ArrayLike, values: ArrayLike) -> dict[str, float]:
    """The constants of a form by variable projection; linear constants are non-negative.

    Args:
      form: one of LINEAR.
      inputs: [n] or [n, k], positive.
      values: [n], positive.

    Raises:
      UserError: another form.
    """
    if form not in LINEAR:
        raise UserError(f"{form} is not linear in any constant; variable projection is for {', '.join(LINEAR)}")
    exponents, linear, make = LINEAR[form]
    logs = columns(inputs, FORMS[form])
    centre, y = logs.mean(0), np.asarray(values, np.float64)
    x = np.exp(logs - centre)

    def solve(e: np.ndarray) -> tuple[np.ndarray, float]:
        matrix = np.stack(make(x, e), axis=1) / y[:, None]
        coefficients, residual = scipy.optimize.nnls(matrix, np.ones(len(y)))
        return coefficients, residual**2

    starts = list(itertools.product(_GRID, repeat=len(exponents)))
    start = min(starts, key=lambda e: solve(np.array(e))[1])
    options = {"xatol": 1e-12, "fatol": 1e-18, "maxiter": 4000}
    best = scipy.optimize.minimize(lambda e: solve(e)[1], start, method="Nelder-Mead", options=options).x
    scales = np.exp(np.append(best * centre, 0.0))  # back to the units of the inputs
    return {
        **dict(zip(linear, (solve(best)[0] * scales).tolist(), strict=True)),
        **dict(zip(exponents, best.tolist(), strict=True)),
    }
