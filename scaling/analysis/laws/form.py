"""What a form of a scaling law is, and what several are made of."""

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
      formula: for people.
      inputs: names of what was varied, in the order in which it is given.
      log_value: (theta [p], log inputs [n, k]) -> log of the predictions [n].
      starts: for each entry of theta, values from which fits begin, in units where every input and the value have
        geometric mean 1.
      constants: (theta, log of the geometric means of the inputs, of the value) -> the constants of the formula.
      simpler: the form with one thing less, for comparison. Without an offset for a sum of powers, with one exponent
        for Kaplan's, with k = 1 for retention; of shape the chinchilla form of the same two inputs, in which the size
        costs nothing and there is no best one. Empty where the next simpler form would leave out an input.
      offset: the constant that is 0 where it is not needed, in the unit of the value. It is fitted by its logarithm and
        comes out as a number however small.
      coefficients: the constants that are positive factors, in units that depend on those of the inputs.
      exponents: the constants that are powers of an input.
      relative: whether 1 means something, in the inputs and in the value, so that they are fitted in the units given.
      same_unit: positions of inputs whose ratio means something.
      turning: inputs of which there may be too much.
      asked_only: whether it is compared with other forms only where it is itself asked for.
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
    """Log of the sum of terms that are given by their logarithms."""
    return jax.nn.logsumexp(jnp.stack(terms), axis=0)


EXPONENTS = (0.1, 0.5, 1.0)
LEVELS = (-3.0, -1.0, 0.0)
