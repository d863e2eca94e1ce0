"""Converts rows of measurements to the numbers that a law is fitted to."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from scaling.compute.hardware import CHIPS
from scaling.core.config import nearest
from scaling.core.errors import UserError
from scaling.core.rows import Row

_RISING = 0.7  # rank correlation above which values count as growing
_NAMED = 5  # rows named per reason for leaving rows out
# Quantities derived from fields of a row. A TPU v3 core-day is the unit of Zhai et al. (2106.04560); here it is
# computed from the operations of a run at 40 % of the peak of a core.
Derived = Mapping[str, Callable[[Row], Any]]
DERIVED: Derived = {
    "core_days": lambda row: row.train_flops / (0.4 * CHIPS["TPU v3"].peak_flops * 86400),
}


@dataclasses.dataclass(frozen=True)
class LawData:
    """Rows as arrays.

    Attributes:
      inputs: [n, k].
      values: [n].
      groups: [n], group of each row; groups are resampled as a whole.
      kept: indices of the given rows that they come from [n].
      warnings: rows left out because they are outside the domain of every law, with reasons.
    """

    inputs: np.ndarray
    values: np.ndarray
    groups: np.ndarray
    kept: np.ndarray
    warnings: tuple[str, ...]


def named(row: Row) -> str:
    """A row in a message."""
    return f"{row.model or row.study!r} of params={row.params}, samples_seen={row.samples_seen}, seed={row.seed}"


def table(rows: Sequence[Row], inputs: Sequence[str], group: str, error: bool, derived: Derived = DERIVED) -> LawData:
    """The numbers in rows.

    Args:
      rows: rows of one metric.
      inputs: names of numeric fields, or of derived quantities.
      group: name of a field; rows with the same value are resampled together. Empty: each row separately.
      error: whether 1 - value is fitted.
      derived: quantities derived from fields.

    Raises:
      UserError: no such field, or one that is not numeric; no row within the domain of a law.
    """
    values = [row.value for row in rows]
    columns = [[number(row, name, derived) for name in inputs] for row in rows]
    groups = np.array([str(getattr(row, known_field(group))) for row in rows]) if group else np.arange(len(rows))
    return law_data((inputs, columns), (rows[0].metric, values), groups, list(map(named, rows)), error)


def law_data(
    inputs: tuple[Sequence[str], Sequence[Sequence[float | None]]],
    values: tuple[str, Sequence[float | None]],
    groups: np.ndarray,
    origins: Sequence[str],
    error: bool,
) -> LawData:
    """Numbers within the domain of a law, with warnings about the rows outside it.

    Args:
      inputs: names [k], and numbers [n, k] or None for an empty cell.
      values: the name, and numbers [n] or None.
      groups: [n].
      origins: names of the rows [n].
      error: whether 1 - value is fitted.

    Raises:
      UserError: no row is within the domain of a law.
    """
    (names, columns), (metric, measured) = inputs, values
    fitted = np.array([math.nan if v is None else 1 - v if error else v for v in measured], np.float64)
    arrays = np.array([[math.nan if cell is None else cell for cell in x] for x in columns], np.float64)
    why: dict[str, list[str]] = {}
    usable = np.ones(len(fitted), bool)
    for i, origin in enumerate(origins):
        cells = [(metric, measured[i], f"1 - {metric}" if error else metric, fitted[i])]
        cells = [
            (name, x, name, arrays[i, k]) for k, (name, x) in enumerate(zip(names, columns[i], strict=True))
        ] + cells
        wrong = [f"{name} is empty" if cell is None else _wrong(said, x) for name, cell, said, x in cells]
        if first := next(filter(None, wrong), ""):
            why.setdefault(first, []).append(origin)
            usable[i] = False
    reasons = "; ".join(f"{word} in {len(of)} of {len(fitted)} rows ({_first(of)})" for word, of in why.items())
    said = [f"{(~usable).sum()} rows are left out: {reasons}"] if why else []
    largest = max((v for v in measured if v is not None and math.isfinite(v)), default=0.0)
    if error and largest > 1:
        said.append(f"{metric} goes up to {largest:g}, and --error wants a share: if these are percent, divide by 100")
    if not usable.any():
        raise UserError("; ".join(said))
    return LawData(arrays[usable], fitted[usable], groups[usable], np.flatnonzero(usable), tuple(said))


def _first(origins: Sequence[str]) -> str:
    """The first of these names, and the number of others."""
    return "; ".join(origins[:_NAMED]) + (f"; and {len(origins) - _NAMED} more" if len(origins) > _NAMED else "")


def _wrong(name: str, x: float) -> str:
    """The reason why a number is outside the domain of a law; empty if it is inside."""
    if not math.isfinite(x):
        return f"{name} is {x:g}"
    return "" if x > 0 else f"{name} is {'0' if x == 0 else 'negative'}"


def rising(data: LawData, inputs: Sequence[str], y: str) -> list[str]:
    """A warning if the values grow with the inputs, as scores do but losses do not."""
    with warnings.catch_warnings(action="ignore"):  # for inputs that do not vary
        ranks = np.array([scipy.stats.spearmanr(column, data.values).statistic for column in data.inputs.T])
    if ranks.max() > _RISING and not ranks.min() < -_RISING / 2:
        return [f"{y} grows with {inputs[int(ranks.argmax())]}: a score is fitted with --error, as 1 - {y}"]
    return []


def number(row: Row, name: str, derived: Derived = DERIVED) -> float:
    """A numeric field of a row, or a derived quantity."""
    value = derived[name](row) if name in derived else getattr(row, known_field(name))
    if value is None:
        raise UserError(f"--x={name} is not a number: it is empty in some rows")
    if isinstance(value, str):
        raise UserError(f"--x={name} is not a number: {value}")
    return float(value)


def colours(rows: Sequence[Row], name: str, derived: Derived = DERIVED) -> np.ndarray:
    """Colour values of the points: numbers, or words if the field has words. [n].

    Raises:
      UserError: no such field, or one that is empty in some rows.
    """
    values = [derived[name](row) if name in derived else getattr(row, known_field(name)) for row in rows]
    if None in values:
        raise UserError(f"--colour={name} is empty in some rows")
    return np.array(values)


def known_field(name: str) -> str:
    """The name, if it is that of a field of rows; raises a UserError otherwise."""
    fields = list(Row.__dataclass_fields__)
    if name not in fields:
        if name in DERIVED:
            raise UserError(f"{name} is computed from fields of the rows: it can only be an --x or a --colour")
        raise UserError(f"{name} is not a field of the rows{nearest(name, [*fields, *DERIVED])}")
    return name
