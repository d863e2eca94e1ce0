"""Converts rows of measurements to the numbers that a law is fitted to."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
import scipy.stats

from scaling.analysis.frames import numbers
from scaling.analysis.sweep_fields import unsaid, varied
from scaling.compute.hardware import CHIPS
from scaling.core.config import nearest
from scaling.core.errors import UserError
from scaling.core.rows import MEASURED, Row

_RISING = 0.7  # rank correlation above which values count as growing
_NAMED = 5  # rows named per reason for leaving rows out
_FOLLOW_STEP = (
    "samples_seen",
    "train_flops",
    "train_flops_encoder",
    "train_flops_published",
    "train_flops_encoder_published",
)
# Word fields that separate experiments, and those that separate kinds of cut.
_EXPERIMENT = ("study", "objective", "parametrization", "dataset", "split", "probe")
_CUT = ("model", "mode", "ordering", "recovery")
_SIZES = ("params", "samples_seen", "images")  # numeric fields that influence a measurement
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


def distinct(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows without duplicates, in an order that does not depend on that of the files; and warnings.

    Duplicate numbers, as from a file given twice, would make intervals too narrow. A row without a number is kept only
    if the same measurement has no number elsewhere. Different numbers for the same measurement are repetitions and
    stay.
    """
    found: dict[tuple[Any, ...], dict[Any, Row]] = {}
    for row in sorted(rows, key=_place):
        numbers = found.setdefault(row.identity, {})
        if _is_number(row.value) or not numbers:
            numbers.setdefault(row.value if _is_number(row.value) else None, row)
    kept = [list(numbers.values()) for numbers in found.values()]
    several = [same for same in kept if len(same) > 1]
    said = []
    if again := len(rows) - sum(map(len, kept)):
        said.append(f"{again} duplicate rows are ignored, equal in value too; a repetition needs its own seed")
    if several:
        values = " and ".join(f"{row.value:.6g}" for row in several[0][:2])
        said.append(
            f"{sum(map(len, several))} rows measure what others do and differ in value, and are kept as repetitions: "
            f"{_named(several[0][0])} is {values}"
        )
    return [row for same in kept for row in same], said


def _place(row: Row) -> tuple[Any, ...]:
    """Sort key of a row: sizes first; if these are equal, all other fields."""
    sizes = (row.params, row.samples_seen, row.train_flops, row.flops, row.seed, row.step, row.base_lr)
    number = (not _is_number(row.value), row.value if _is_number(row.value) else 0.0)
    return (*sizes, *map(str, row.identity), *number, *(str((row.low, row.high, row.device, row.versions)),))


def _named(row: Row) -> str:
    return f"{row.model or row.study!r} of params={row.params}, samples_seen={row.samples_seen}, seed={row.seed}"


def best(rows: Sequence[Row], field: str, error: bool) -> list[Row]:
    """Among rows that differ in one field (and the seed), those with the value that is best on average over seeds.

    Args:
      rows: rows of one metric.
      field: a field such as base_lr. The samples and operations of a run change with `step`.
      error: whether larger is better.

    Raises:
      UserError: no such field.
    """
    apart = {_known(field), "seed", "model", "config_hash", *(_FOLLOW_STEP if field == "step" else ())}
    same = [f.name for f in dataclasses.fields(Row) if f.name not in {*MEASURED, *apart}]
    groups: dict[tuple[Any, ...], dict[Any, list[Row]]] = {}
    for row in rows:
        key = (unsaid(row), *(getattr(row, name) for name in same))
        groups.setdefault(key, {}).setdefault(getattr(row, field), []).append(row)

    def loss(members: list[Row]) -> float:
        values = [row.value if row.value is not None else math.nan for row in members]
        mean = sum(values) / len(values)
        return math.inf if math.isnan(mean) else -mean if error else mean  # a run that failed is the worst

    chosen = [row for group in groups.values() for row in min(group.values(), key=loss)]
    return sorted(chosen, key=_place)


def wanted(pairs: Sequence[str]) -> dict[str, list[str]]:
    """Values by key, from several key=value; raises a UserError for anything else."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--where={pair}: must be a field and a value, such as parametrization=mup")
        found.setdefault(name, []).append(value)
    return found


def choose(rows: Sequence[Row], where: Mapping[str, Sequence[str]], metric: str) -> list[Row]:
    """The rows with this metric and, in each of these fields, one of the given values.

    Raises:
      UserError: no such field, or no such row; the message lists the available values or metrics.
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
    found = [row for row in kept if row.metric == metric]
    if not kept and where:
        said = " ".join(f"--where={name}={v}" for name, values in where.items() for v in values)
        raise UserError(f"no row has all of {said}; leave one out")
    if not found:
        metrics = sorted({row.metric for row in kept})
        raise UserError(f"no row has --y={metric}; the metrics are {', '.join(metrics) or 'none'}")
    return found


def mixed(rows: Sequence[Row], inputs: Sequence[str] = (), derived: Derived = DERIVED) -> list[str]:
    """Warnings for fields that differ between rows and change the quantity or the experiment; for cuts of different
    kinds; for learning rates, lengths, data and sizes that differ although the inputs of the law do not; and for
    runs present at several steps.
    """
    found = []
    cut = [row for row in rows if row.compute != 1]  # the whole encoder belongs to cuts of every kind
    for names, those in ((_EXPERIMENT, rows), (_CUT, cut)):
        for name in names:
            values = {getattr(row, name) for row in those}
            if len(values) > 1 and name not in inputs:
                found.append(f"one law for rows of different {name} ({_some(values, 3)}): --where={name}=… keeps one")
    steps: dict[str, set[int]] = {}
    for row in rows:
        if row.config_hash:
            steps.setdefault(row.config_hash, set()).add(row.step)
    several: list[tuple[str, str, list[set[Any]]]] = [
        ("base_lr", "at the same inputs", [v for v in _at_the_same(rows, inputs, "base_lr", derived) if len(v) > 1]),
        ("step", "of the same config_hash", [v for v in steps.values() if len(v) > 1]),
    ]
    found += [
        f"one law for rows of different {name} {what} ({_some(pooled[0], 3)}): --best={name} takes the best, "
        f"--where={name}=… keeps one"
        for name, what, pooled in several
        if pooled and name not in inputs
    ]
    follows_step = bool(several[1][2])
    for name in varied([{name: getattr(row, name) for name in _SIZES} for row in rows]) if inputs else ():
        values = max(_at_the_same(rows, inputs, name, derived), key=len)
        if len(values) > 1 and not (name in _FOLLOW_STEP and follows_step):
            found.append(
                f"one law for rows of different {name} at the same inputs ({_some(values, 3)}): make it an --x too, "
                f"or --where={name}=… keeps one"
            )
    return found


def _at_the_same(rows: Sequence[Row], inputs: Sequence[str], name: str, derived: Derived) -> list[set[Any]]:
    """The values of a field, for each point in the inputs of a law."""
    there: dict[tuple[float, ...], set[Any]] = {}
    for row in rows:
        there.setdefault(tuple(number(row, x, derived) for x in inputs), set()).add(getattr(row, name))
    return list(there.values())


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
    groups = np.array([str(getattr(row, _known(group))) for row in rows]) if group else np.arange(len(rows))
    return law_data((inputs, columns), (rows[0].metric, values), groups, list(map(_named, rows)), error)


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
    value = derived[name](row) if name in derived else getattr(row, _known(name))
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
    values = [derived[name](row) if name in derived else getattr(row, _known(name)) for row in rows]
    if None in values:
        raise UserError(f"--colour={name} is empty in some rows")
    return np.array(values)


def _some(values: Collection[Any], count: int) -> str:
    """The first of these values, in order, as Python writes them."""
    ordered = sorted(values, key=lambda value: (value is None, 0 if value is None else value))
    return ", ".join(map(repr, ordered[:count])) + ", …" * (len(values) > count)


def _known(name: str) -> str:
    fields = list(Row.__dataclass_fields__)
    if name not in fields:
        if name in DERIVED:
            raise UserError(f"{name} is computed from fields of the rows: it can only be an --x or a --colour")
        raise UserError(f"{name} is not a field of the rows{nearest(name, [*fields, *DERIVED])}")
    return name


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _same(field: object, written: str) -> bool:
    if isinstance(field, int | float):
        try:
            return numbers.number(written) == field
        except ValueError:
            return False
    return str(field) == written
