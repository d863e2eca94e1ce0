"""Rows that a law is fitted to: those asked for, without duplicates, or the best of each field."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeGuard

from scaling.analysis.frames import numbers
from scaling.analysis.laws.columns import known_field, named
from scaling.analysis.sweep_fields import unsaid
from scaling.core.errors import UserError
from scaling.core.rows import MEASURED, Row

# Fields that change with the step of one run.
FOLLOW_STEP = (
    "samples_seen",
    "train_flops",
    "train_flops_encoder",
    "train_flops_published",
    "train_flops_encoder_published",
)


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
            f"{named(several[0][0])} is {values}"
        )
    return [row for same in kept for row in same], said


def _place(row: Row) -> tuple[Any, ...]:
    """Sort key of a row: sizes first; if these are equal, all other fields."""
    sizes = (row.params, row.samples_seen, row.train_flops, row.flops, row.seed, row.step, row.base_lr)
    number = (not _is_number(row.value), row.value if _is_number(row.value) else 0.0)
    return (*sizes, *map(str, row.identity), *number, *(str((row.low, row.high, row.device, row.versions)),))


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def best(rows: Sequence[Row], field: str, error: bool) -> list[Row]:
    """Among rows that differ in one field (and the seed), those with the value that is best on average over seeds.

    Args:
      rows: rows of one metric.
      field: a field such as base_lr. The samples and operations of a run change with `step`.
      error: whether larger is better.

    Raises:
      UserError: no such field.
    """
    apart = {known_field(field), "seed", "model", "config_hash", *(FOLLOW_STEP if field == "step" else ())}
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
        there = {getattr(row, known_field(name)) for row in rows}
        for written in values:
            if not any(_same(value, written) for value in there):
                listed = some(there, 12) or "there are no rows"
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


def _same(field: object, written: str) -> bool:
    if isinstance(field, int | float):
        try:
            return numbers.number(written) == field
        except ValueError:
            return False
    return str(field) == written


def some(values: Collection[Any], count: int) -> str:
    """The first of these values, in order, as Python writes them."""
    ordered = sorted(values, key=lambda value: (value is None, 0 if value is None else value))
    return ", ".join(map(repr, ordered[:count])) + ", …" * (len(values) > count)
