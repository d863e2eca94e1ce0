"""Rows of measurements to the numbers that a law is fitted to."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from scaling.analysis.hardware import PEAK_FLOPS
from scaling.config import nearest
from scaling.errors import UserError
from scaling.results import Row

# What is not a field of a row but follows from some. A TPU v3 core-day is the unit of Zhai et al. (2106.04560); here it
# is the operations of a run at 40 % of the peak of a core.
DERIVED: dict[str, Callable[[Row], float]] = {
    "core_days": lambda row: row.train_flops / (0.4 * PEAK_FLOPS["TPU v3"] * 86400),
}


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows as arrays.

    Attributes:
      inputs: [n, k].
      values: [n].
      groups: [n], what is resampled together.
      rows: they come from.
      left_out: number of rows whose value is not positive, which no law here can have.
    """

    rows: list[Row]
    inputs: np.ndarray
    values: np.ndarray
    groups: np.ndarray
    left_out: int


def distinct(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The first of all rows that measure the same, one with a number before one without, and how many others there are:
    a number that is there twice, as in a file given twice, would make intervals too narrow.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: not math.isfinite(row.value or 0.0)):
        found.setdefault(row.identity, row)
    return list(found.values()), len(rows) - len(found)


def wanted(pairs: Sequence[str]) -> dict[str, list[str]]:
    """key=value, several times -> the values of each key; raises a UserError for anything else."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--where={pair}: a field and its value, like parametrization=mup")
        found.setdefault(name, []).append(value)
    return found


def choose(rows: Sequence[Row], where: Mapping[str, Sequence[str]], metric: str) -> list[Row]:
    """The rows with this metric that have a value, and in each of these fields one of its values.

    Raises:
      UserError: no such field, or no such row; the message lists the values or the metrics there are.
    """
    for name, values in where.items():
        there = {getattr(row, _known(name)) for row in rows}
        for written in values:
            if not any(_same(value, written) for value in there):
                listed = _some(there, 12) or "there are no rows"
                raise UserError(f"--where={name}={written}: no row has it; {name} is one of: {listed}")
    kept = [
        row for row in rows if all(any(_same(getattr(row, name), v) for v in values) for name, values in where.items())
    ]
    found = [row for row in kept if row.metric == metric and row.value is not None]
    if not kept and where:
        said = " ".join(f"--where={name}={v}" for name, values in where.items() for v in values)
        raise UserError(f"no row has all of {said}; leave one out")
    if not found:
        metrics = sorted({row.metric for row in kept})
        raise UserError(f"no row has --y={metric}; the metrics are {', '.join(metrics) or 'none'}")
    return found


def mixed(rows: Sequence[Row]) -> list[str]:
    """Warnings for fields that make another quantity or another experiment of a number, and differ between rows."""
    found = []
    for name in ("objective", "parametrization", "dataset", "split", "probe"):
        values = sorted({getattr(row, name) for row in rows})
        if len(values) > 1:
            found.append(f"one law for rows of different {name} ({_some(values, 3)}): --where={name}=… keeps one")
    return found


def table(rows: Sequence[Row], inputs: Sequence[str], group: str, error: bool) -> Table:
    """The numbers of rows.

    Args:
      rows: of one metric.
      inputs: names of numeric fields, or of `DERIVED`.
      group: name of a field; rows with the same value are resampled together. Empty: each row for itself.
      error: whether 1 - value is fitted.

    Raises:
      UserError: no such field, or one that is no number.
    """
    values = np.array([1 - (row.value or 0.0) if error else row.value for row in rows], np.float64)
    columns = np.array([[number(row, name) for name in inputs] for row in rows])
    groups = np.array([str(getattr(row, _known(group))) for row in rows]) if group else np.arange(len(rows))
    positive = values > 0
    kept = [row for row, is_positive in zip(rows, positive, strict=True) if is_positive]
    return Table(kept, columns[positive], values[positive], groups[positive], int((~positive).sum()))


def number(row: Row, name: str) -> float:
    """A numeric field of a row, or what is derived from some."""
    value = DERIVED[name](row) if name in DERIVED else getattr(row, _known(name))
    if value is None:
        raise UserError(f"--x={name} is no number: it is empty in some rows")
    if isinstance(value, str):
        raise UserError(f"--x={name} is no number: {value}")
    return float(value)


def colours(rows: Sequence[Row], name: str) -> np.ndarray:
    """What colours a point: numbers, or words where the field has words. [n].

    Raises:
      UserError: no such field, or one that is empty in some rows.
    """
    values = [DERIVED[name](row) if name in DERIVED else getattr(row, _known(name)) for row in rows]
    if None in values:
        raise UserError(f"--colour={name} is empty in some rows")
    return np.array(values)


def _some(values: Collection[Any], count: int) -> str:
    """The first of these, in order, as Python writes them."""
    ordered = sorted(values, key=lambda value: (value is None, 0 if value is None else value))
    return ", ".join(map(repr, ordered[:count])) + ", …" * (len(values) > count)


def _known(name: str) -> str:
    fields = list(Row.__dataclass_fields__)
    if name not in fields:
        if name in DERIVED:
            raise UserError(f"{name} follows from fields of the rows: it can be an --x or a --colour only")
        raise UserError(f"{name} is no field of the rows{nearest(name, [*fields, *DERIVED])}")
    return name


def _same(field: object, written: str) -> bool:
    if isinstance(field, int | float):
        try:
            return float(written) == field
        except ValueError:
            return False
    return str(field) == written
