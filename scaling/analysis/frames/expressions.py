"""Derived columns and selected rows: `--column` and `--where`.

Expressions are the SQL of polars, of the names of columns (in backticks where they hold a space or a sign) and of
numbers, 1e9 or 1B (K, M, B, T): + - * /, comparisons, and, or, not, ln, log10, exp, power, sqrt, case when … then …
else … end.
"""

import re
from collections.abc import Mapping, Sequence

import polars as pl

from scaling.analysis.frames.numbers import number, without_suffixes
from scaling.analysis.frames.reading import ORIGIN
from scaling.core.config import nearest
from scaling.core.errors import UserError, first_line

_COMPARE = re.compile(r"<=|>=|!=|<>|==|=|<|>")
_ORDER = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


def made(written: Sequence[str]) -> dict[str, str]:
    """Expressions by name, from several NAME=EXPRESSION; raises a UserError for anything else."""
    found: dict[str, str] = {}
    for one in written:
        name, equals, expression = one.partition("=")
        name = name.strip().strip("`")
        if not equals or not name or not expression.strip():
            raise UserError(f"--column={one}: must be a name and an expression of columns, such as N=`Model Size`")
        if name in found:
            raise UserError(f"--column={one}: {name} is already a computed column; choose another name")
        found[name] = expression
    return found


def with_columns(data: pl.DataFrame, columns: Mapping[str, str]) -> pl.DataFrame:
    """The frame with columns computed from expressions, which can use columns computed before them.

    Raises:
      UserError: no such column, or not an expression.
    """
    for name, expression in columns.items():
        values = evaluate(data, expression, f"--column={name}={expression}")
        data = data.with_columns(values.alias(name))
    return data


def plain_field(condition: str) -> str:
    """NAME of NAME=VALUE; empty for any other condition."""
    name, sign, _ = _parts(condition)
    return name if sign == "=" else ""


def evaluate(data: pl.DataFrame, expression: str, where: str) -> pl.Series:
    """The value of an expression in every row; integers as float64.

    Raises:
      UserError: a message that begins with `where`.
    """
    names = [name for name in data.columns if name != ORIGIN]
    if expression in names:
        return data[expression]
    try:
        parsed = pl.sql_expr(without_suffixes(expression))
        _check_no_alias(parsed, where)
        for name in parsed.meta.root_names():
            if name not in names:
                raise UserError(f"{where}: there is no column {name}{nearest(name, names)}{_quoting(names)}")
        values = data.select(parsed.alias("value")).to_series()
    except pl.exceptions.PolarsError as e:
        raise UserError(f"{where}: {first_line(e)}; an expression of {', '.join(names)}{_quoting(names)}") from e
    if len(values) != len(data):
        values = values.new_from_index(0, len(data))
    return values.cast(pl.Float64) if values.dtype.is_integer() else values


def _check_no_alias(parsed: pl.Expr, where: str) -> None:
    """Raises UserError for `loss x` or `1k`: SQL reads the last word as a new name and ignores what was meant."""
    if not parsed.meta.eq(parsed.meta.undo_aliases()):
        word = parsed.meta.output_name()
        raise UserError(
            f"{where}: there is no operator before {word}; write one, or write a number as 1e9 or 1B (K, M, B, T)"
        )


def _quoting(names: Sequence[str]) -> str:
    signs = [name for name in names if not re.fullmatch(r"\w+", name)]
    return f" (write `{signs[0]}` in backticks)" if signs else ""


def keep(data: pl.DataFrame, conditions: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """The rows that satisfy all conditions (several NAME=VALUE with one NAME are alternatives), and a note on the
    others.

    Args:
      data: a frame.
      conditions: NAME=VALUE, NAME!=VALUE, NAME<NUMBER, …, or an expression that is true or false.

    Raises:
      UserError: no such column, no such value, or no row that is left.
    """
    either: dict[str, list[pl.Series]] = {}
    for i, one in enumerate(conditions):
        name, sign, mask = _mask(data, one)
        either.setdefault(name if sign in ("=", "==") else f"\0{i}", []).append(mask)
    kept, unknown = pl.Series([True] * len(data)), pl.Series([False] * len(data))
    for masks in either.values():
        any_of = pl.select(pl.any_horizontal(masks)).to_series() if len(masks) > 1 else masks[0]
        unknown |= any_of.is_null()
        kept &= any_of.fill_null(False)
    said = " ".join(f"--where={one}" for one in conditions)
    if not kept.any():
        raise UserError(f"no row of {len(data)} has all of {said}; leave one out")
    words = f", in {unknown.sum()} of the others a cell is empty" if unknown.any() else ""
    notes = [f"{said} keeps {kept.sum()} of {len(data)} rows{words}"] if conditions else []
    return data.filter(kept), notes


def _mask(data: pl.DataFrame, condition: str) -> tuple[str, str, pl.Series]:
    """A condition's column, sign and truth in every row."""
    where, names = f"--where={condition}", [name for name in data.columns if name != ORIGIN]
    name, sign, value = _parts(condition)
    if sign and name in names:
        found = _compare(data[name], sign, value, where)
        if found is not None:
            return name, sign, found
    elif sign in ("=", "==") and re.fullmatch(r"[\w./-]+", name):
        raise UserError(f"{where}: there is no column {name}{nearest(name, names)}")
    values = evaluate(data, condition, where)
    if values.dtype != pl.Boolean:
        raise UserError(f"{where}: must be true or false for a row; give a comparison, such as loss<5 or model=vit_b")
    return "", "", values


def _parts(condition: str) -> tuple[str, str, str]:
    """Name, sign and value around the first sign outside backticks; empty without a sign."""
    outside = re.sub(r"`[^`]*`", lambda quoted: "`" * len(quoted[0]), condition)
    if not (sign := _COMPARE.search(outside)):
        return condition, "", ""
    name, value = condition[: sign.start()].strip().strip("`"), condition[sign.end() :].strip()
    return name, sign[0], value


def _compare(column: pl.Series, sign: str, value: str, where: str) -> pl.Series | None:
    """A column compared with a literal number or word; None if the value is an expression."""
    number = _number(value)
    if sign in _ORDER:
        if number is None:
            return None
        if not column.dtype.is_numeric():
            raise UserError(f"{where}: the column does not hold numbers; it has {_some(column)}")
        return getattr(column, _ORDER[sign])(number)
    if column.dtype.is_numeric():
        if number is None:
            raise UserError(f"{where}: no row has it; the column holds numbers, such as {_some(column)}")
        equal = column == number
    else:
        equal = column.cast(pl.String) == value.strip("'\"")
    if not equal.any():
        raise UserError(f"{where}: no row has it; the column has {_some(column)}")
    return equal if sign in ("=", "==") else ~equal


def _number(written: str) -> float | None:
    try:
        return number(written)
    except ValueError:
        return None


def _some(column: pl.Series) -> str:
    values = column.drop_nulls().unique().sort().to_list()
    return ", ".join(f"{x:g}" if isinstance(x, float) else str(x) for x in values[:12]) + ", …" * (len(values) > 12)
