"""Checks that the inputs of a law vary, and independently of each other. Otherwise a fit ends where its optimiser
began, and a bootstrap, which begins there too, gives it a falsely narrow interval.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from scaling.core.errors import UserError

TOGETHER = 0.999  # correlation of the logarithms of two inputs above which their effects are inseparable
_OFF = 0.05  # tolerance for rounding in inputs that vary together, for example to a whole number of steps
# Number of values that an input needs, and the constants that fewer leave undetermined.
_NEEDED: dict[str, tuple[int, tuple[tuple[str, ...], ...]]] = {
    "power": (3, (("a", "b", "c"),)),
    "saturating": (4, (("a", "b", "c", "d"),)),
    "chinchilla": (3, (("A", "E", "alpha", "N_opt_exponent"), ("B", "E", "beta", "N_opt_exponent"))),
}


@dataclasses.dataclass(frozen=True)
class Ray:
    """Two inputs that vary together: log second = slope log first + offset.

    Attributes:
      correlation: correlation of the logarithms.
      slope: slope of the line.
      low, high: smallest and largest offset.
    """

    correlation: float
    slope: float
    low: float
    high: float

    def off(self, logs: np.ndarray) -> np.ndarray:
        """Distance of log inputs [n, 2] from the measured band, in the logarithm of the second input, 0 inside: [n]."""
        offset = logs[:, 1] - self.slope * logs[:, 0]
        return np.maximum(np.maximum(offset - self.high, self.low - offset) - np.log1p(_OFF), 0.0)

    def second(self, first: np.ndarray) -> np.ndarray:
        """The second input on the line, given the first [n]."""
        return np.exp(self.slope * np.log(first) + (self.low + self.high) / 2)


def check_varies(form: str, inputs: np.ndarray, names: Sequence[str]) -> None:
    """Raises a UserError for an input of [n, k] that is constant."""
    for name, column in zip(names, inputs.T, strict=False):
        if len(column) > 1 and column.max() <= column.min() * (1 + 1e-9):
            others = " and a form without it" if len(names) > 1 else ""
            raise UserError(
                f"{name} is {column[0]:g} in all {len(column)} rows: {form} needs it to vary; give another --x{others}"
            )


def ray_of(inputs: np.ndarray) -> Ray | None:
    """The line along which inputs [n, k] vary together; None if they do not, or if there is only one."""
    if inputs.shape[1] != 2:
        return None
    logs = np.log(inputs)
    correlation = float(np.corrcoef(logs.T)[0, 1])
    if abs(correlation) < TOGETHER:
        return None
    slope = float(np.sign(correlation) * logs[:, 1].std() / logs[:, 0].std())
    offset = logs[:, 1] - slope * logs[:, 0]
    return Ray(correlation, slope, float(offset.min()), float(offset.max()))


def undetermined(form: str, inputs: np.ndarray, names: Sequence[str], constants: Sequence[str]) -> dict[str, list[str]]:
    """Reasons why inputs [n, k] cannot determine constants, whatever the values -> these constants."""
    if ray := ray_of(inputs):
        how = "rise together" if ray.correlation > 0 else "go together, one up and one down"
        why = f"{' and '.join(names)} {how} (correlation {ray.correlation:.2f}): their parts cannot be told apart"
        return {why: list(constants)}
    found = {}
    needed, of_input = _NEEDED.get(form, (0, ()))
    for name, column, which in zip(names, inputs.T, of_input, strict=False):
        if (values := len(np.unique(column))) < needed:
            found[f"{name} has {values} values: {form} needs {needed} to determine {', '.join(which)}"] = list(which)
    return found
