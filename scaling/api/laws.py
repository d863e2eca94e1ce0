"""Scaling laws through measured numbers."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from scaling.analysis.laws.columns import choose, distinct, mixed, rising
from scaling.analysis.laws.columns import table as law_data
from scaling.analysis.laws.report import RESAMPLES, Law, law
from scaling.core.config import nearest
from scaling.core.errors import UserError
from scaling.core.paths import user_path
from scaling.core.rows import read_rows


def fit_law(
    table: Any,
    x: str | Sequence[str] = "params",
    y: str = "eval_loss",
    form: str = "power",
    *,
    group: str = "",
    error: bool = False,
    resamples: int = RESAMPLES,
) -> Law:
    """Fits a scaling law through measured numbers, with 95 % intervals by bootstrap.

    Args:
      table: columns by name (a dict, a pandas or polars DataFrame), or a file of rows that a command has written.
      x: name of the input, or of several, as many as the form has; positive numbers in any unit.
      y: name of what is fitted, positive: a loss as it is, a score with `error`.
      form: power (a x^-b + c), line, saturating, kaplan, chinchilla (parameters, samples), shape or retention.
      group: name of the column whose equal rows are resampled together; each row by itself by default.
      error: fit 1 - y.
      resamples: of the bootstrap.

    Returns:
      The law: `fit.constants`, `at(x)` with intervals, `summary()`, `warnings` (what the numbers do not support).

    Raises:
      UserError: no such column or form, or numbers that a law cannot have.

    >>> table = {"params": [1e6, 3e6, 1e7, 3e7, 1e8], "loss": [0.9, 0.74, 0.62, 0.54, 0.48]}
    >>> law = scaling.fit_law(table, y="loss", form="power", resamples=50)
    >>> sorted(law.fit.constants)
    ['a', 'b', 'c']
    >>> 0.4 < law.at([3e8])[0].value < 0.48
    True
    """
    names = [x] if isinstance(x, str) else list(x)
    if isinstance(table, str | os.PathLike):
        rows, notes = distinct(choose(read_rows(user_path("table", table)), {}, y))
        data = law_data(rows, names, group, error)
        warned = (*notes, *data.warnings, *mixed(rows, names), *([] if error else rising(data, names, y)))
        found = law(form, data.inputs, data.values, data.groups, count=resamples, names=names)
        return dataclasses.replace(found, warnings=(*warned, *found.warnings))
    inputs = np.stack([_column(table, name) for name in names], axis=1)
    values = 1 - _column(table, y) if error else _column(table, y)
    return law(form, inputs, values, _column(table, group, None) if group else None, count=resamples, names=names)


def _column(table: Any, name: str, kind: Any = np.float64) -> np.ndarray:
    """A column [n] of a dict or a DataFrame, of numbers by default."""
    names = list(getattr(table, "columns", table))
    if name not in names:
        raise UserError(f"table has no column {name!r}{nearest(name, names).replace('fields', 'columns')}")
    try:
        return np.asarray(table[name], kind)
    except (TypeError, ValueError) as e:
        raise UserError(f"table, column {name!r}: must hold numbers; {e}") from e
