"""The declaration of a form of a scaling law, and parts that several forms share."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Constants = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
      formula: formula as text.
      inputs: names of the inputs, in order.
      log_value: (theta [p], log inputs [n, k]) -> log of the predictions [n].
      starts: starting values for each entry of theta, in units in which every input and the value have geometric mean
        1.
      constants: (theta, log of the geometric means of the inputs, of the value) -> the constants of the formula.
      simpler: a form with one constant less, for comparison: without the offset for a sum of powers, with one exponent
        for Kaplan's, with k = 1 for retention; for shape, the chinchilla form of the same two inputs, in which size has
        no cost and no optimum. Empty if the next simpler form would drop an input.
      offset: the constant that is 0 if not needed, in the unit of the value. Its logarithm is fitted, so it is never
        exactly 0.
      coefficients: constants that are positive factors, in units that depend on those of the inputs.
      exponents: constants that are powers of an input.
      relative: whether inputs and value are ratios, for which 1 is special, so that they are fitted without rescaling.
      same_unit: positions of inputs with the same unit, whose ratio is meaningful.
      turning: inputs in which the value can increase beyond an optimum.
      asked_only: whether it is compared with other forms only if it was itself requested.
    """

    formula: str
    inputs: tuple[str, ...]
    log_value: Callable[[Array, Array], Array]
    starts: tuple[tuple[float, ...], ...]
    constants: Callable[[np.ndarray, np.ndarray, float], Mapping[str, np.ndarray]]
    simpler: str = ""
    offset: str = ""
    coefficients: tuple[str, ...] = ()
    exponents: tuple[str, ...] = ()
    relative: bool = False
    same_unit: tuple[int, ...] = ()
    turning: tuple[str, ...] = ()
    asked_only: bool = False


def log_sum(*terms: Array) -> Array:
    """Log of the sum of terms given by their logarithms."""
    return jax.nn.logsumexp(jnp.stack(terms), axis=0)


EXPONENTS = (0.1, 0.5, 1.0)
LEVELS = (-3.0, -1.0, 0.0)
