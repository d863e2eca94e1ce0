"""Selects the numbers that a law is fitted to, from own rows and from other tables, by one question."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from scaling.analysis.frames.expressions import keep, made, plain_field, with_columns
from scaling.analysis.frames.reading import ORIGIN, Frame, as_numbers, together
from scaling.analysis.laws.columns import DERIVED, Derived, LawData, colours, law_data, table
from scaling.analysis.laws.envelope import envelope
from scaling.analysis.laws.filtering import best, choose, distinct, wanted
from scaling.analysis.laws.pooling import mixed
from scaling.core.config import nearest
from scaling.core.errors import UserError
from scaling.core.rows import Row

Measurements = list[Row] | Frame
_FIELDS = [field.name for field in dataclasses.fields(Row)]


@dataclasses.dataclass(frozen=True)
class Question:
    """The selection of rows and numbers that a law is fitted to.

    Attributes:
      x, y: names of columns, or of fields and of a metric of own rows.
      where: conditions, see `scaling.analysis.frames.expressions.keep`.
      columns: NAME=EXPRESSION, columns computed from others.
      group: column; rows with the same value are resampled together.
      best: column; only rows with its best value are fitted.
      error: whether 1 - y is fitted.
      colour: column that colours the points of a figure.
      envelope: bins of x, of which only the best row is fitted, see `scaling.analysis.laws.envelope`; empty for all
        rows.
    """

    x: Sequence[str]
    y: str
    where: Sequence[str] = ()
    columns: Sequence[str] = ()
    group: str = ""
    best: str = ""
    error: bool = False
    colour: str = ""
    envelope: str = ""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The numbers that a question selects.

    Attributes:
      data: the numbers.
      notes: descriptions of omitted rows and of conversions.
      doubts: warnings that the rows belong to different experiments.
      colour: colours of the points [n]; None if not requested.
      units: meaning of the numbers, by the names in the question.
    """

    data: LawData
    notes: tuple[str, ...]
    doubts: tuple[str, ...]
    colour: np.ndarray | None
    units: Mapping[str, str]


def choose_numbers(sources: Sequence[Measurements], ask: Question) -> Chosen:
    """The numbers in files.

    Args:
      sources: own rows, or table, of each file. If any is a table, own rows are converted to tables too, with the
        metric y as a column.
      ask: the question.

    Raises:
      UserError: no such column or metric, or no rows are left.
    """
    frames = [source for source in sources if isinstance(source, Frame)]
    rows = [row for source in sources if not isinstance(source, Frame) for row in source]
    if frames and rows:
        frames.append(Frame(_frame_of(choose(rows, {}, ask.y), ask.y)))
    found = _of_frame(together(frames), ask) if frames else _of_rows(rows, ask)
    if not ask.envelope:
        return found
    data, said = envelope(found.data, ask.envelope, ask.x)
    colour = None if found.colour is None else found.colour[np.searchsorted(found.data.kept, data.kept)]
    return dataclasses.replace(found, data=data, notes=(*found.notes, *said), colour=colour)


def _of_rows(rows: Sequence[Row], ask: Question) -> Chosen:
    plain = [one for one in ask.where if plain_field(one) in _FIELDS]
    there = choose(rows, wanted(plain), ask.y)
    there, derived, notes = _with_made(there, ask, [one for one in ask.where if one not in plain])
    kept, said = distinct(there)
    notes += said
    if ask.best:
        there, kept = kept, best(kept, ask.best, ask.error)
        if len(kept) < len(there):
            notes.append(f"{len(kept)} of {len(there)} rows have the best {ask.best}, the others are not counted")
    data = table(kept, ask.x, ask.group, ask.error, derived)
    kept = [kept[i] for i in data.kept]
    colour = colours(kept, ask.colour, derived) if ask.colour else None
    units = {name: UNITS.get(name, "") for name in ask.x} | made(ask.columns)
    return Chosen(data, (*notes, *data.warnings), tuple(mixed(kept, ask.x, derived)), colour, units)


def _with_made(rows: list[Row], ask: Question, where: Sequence[str]) -> tuple[list[Row], Derived, list[str]]:
    """Own rows of one metric with the computed columns, filtered by the conditions; a reader of such a column; and
    notes.
    """
    expressions = made(ask.columns)
    if not expressions and not where:
        return rows, DERIVED, []
    data = with_columns(_frame_of(rows, ask.y), expressions).with_row_index("\0row")
    data, notes = keep(data, where)
    rows = [rows[i] for i in data["\0row"]]
    for name in expressions:
        if name in _FIELDS or name == ask.y:
            field = "value" if name == ask.y else name
            rows = [dataclasses.replace(r, **{field: x}) for r, x in zip(rows, data[name], strict=True)]
    values: dict[str, dict[int, Any]] = {
        name: {id(row): x for row, x in zip(rows, data[name], strict=True)} for name in expressions
    }
    reading = {name: (lambda row, of=of: of[id(row)]) for name, of in values.items()}
    return rows, {**DERIVED, **reading}, notes


def _frame_of(rows: Sequence[Row], metric: str) -> pl.DataFrame:
    """Own rows of one metric as a table, with the metric as a column beside `value`."""
    columns = {name: [getattr(row, name) for row in rows] for name in _FIELDS if name != "outcomes"}
    data = as_numbers(pl.DataFrame(columns, strict=False, infer_schema_length=None))
    derived = {name: pl.Series([float(of(row)) for row in rows]) for name, of in DERIVED.items()}
    values = pl.Series(columns["value"], dtype=pl.Float64, strict=False)
    return data.with_columns(**derived, **{metric: values}, value=values)


def _of_frame(frame: Frame, ask: Question) -> Chosen:
    expressions = made(ask.columns)
    data, notes = keep(with_columns(frame.data, expressions), ask.where)
    names = [name for name in data.columns if name != ORIGIN]
    asked = {"x": ask.x, "y": [ask.y], "group": [ask.group], "best": [ask.best], "colour": [ask.colour]}
    for flag, columns in asked.items():
        for name in columns:
            if name and name not in names:
                raise UserError(f"--{flag}={name}: there is no such column{nearest(name, names)}")
    data, said = _numeric(data, [*ask.x, ask.y])
    notes += said
    if ask.best:
        before, data = len(data), _best(data, ask)
        notes.append(f"{len(data)} of {before} rows have the best {ask.best}, the others are not counted")
    groups = data[ask.group].cast(pl.String).fill_null("").to_numpy() if ask.group else np.arange(len(data))
    cells = list(zip(*(data[name].to_list() for name in ask.x), strict=True))
    found = law_data((ask.x, cells), (ask.y, data[ask.y].to_list()), groups, data[ORIGIN].to_list(), ask.error)
    data = data[found.kept]
    if ask.colour and data[ask.colour].has_nulls():
        raise UserError(f"--colour={ask.colour} is empty in some rows")
    colour = data[ask.colour].to_numpy() if ask.colour else None
    units = {name: expressions.get(name, "as the file has it") for name in (*ask.x, ask.y)}
    return Chosen(found, (*frame.notes, *notes, *_repeated(data, ask), *found.warnings), (), colour, units)


def _numeric(data: pl.DataFrame, names: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """The frame with these columns as numbers; rows with a word in such a cell are left out and named."""
    notes = []
    for name in dict.fromkeys(names):
        column = data[name]
        if column.dtype == pl.Boolean or not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Null)):
            raise UserError(f"{name} is not a column of numbers: {column.dtype}; --column={name}=… computes one")
        numbers = column.cast(pl.Float64, strict=False)
        words = numbers.is_null() & column.is_not_null()
        if words.all():
            raise UserError(f"{name} is not a column of numbers: {column[0]!r}; {_making(name, column[0])}")
        if words.any():
            first = [f"{row[ORIGIN]}: {row[name]!r}" for row in data.filter(words).head(5).iter_rows(named=True)]
            more = f"; and {words.sum() - 5} more" if words.sum() > 5 else ""
            notes.append(f"{words.sum()} rows are left out: {name} is not a number ({'; '.join(first)}{more})")
            notes[-1] += f"; {_making(name, cell)}" if _is_written_number(cell := column.filter(words)[0]) else ""
        data = data.with_columns(numbers.alias(name)).filter(~words)
    return data, notes


_THOUSANDS, _DECIMAL, _PERCENT = r"-?\d{1,3}(,\d{3})+(\.\d*)?", r"-?\d+,\d+", r"-?\d+([.]\d*)?\s*%"


def _is_written_number(cell: str) -> bool:
    """Whether a cell is a number in human notation: 1,000,000 or 0,5 or 50%."""
    return any(re.fullmatch(kind, cell.strip()) for kind in (_THOUSANDS, _DECIMAL, _PERCENT))


def _making(name: str, cell: str) -> str:
    """An expression that converts a column with cells like this one to numbers."""
    column, cell = name if re.fullmatch(r"[A-Za-z_]\w*", name) else f"`{name}`", cell.strip()
    if re.fullmatch(_PERCENT, cell):
        made_of = f"cast(replace({column}, '%', '') as double)/100"
    elif _is_written_number(cell):
        sign = "" if re.fullmatch(_THOUSANDS, cell) else "."
        made_of = f"cast(replace({column}, ',', '{sign}') as double)"
    else:
        return f"--column={name}=… computes one"
    quoted = f"{name}={made_of}".replace("`", "\\`")
    return f'--column="{quoted}" makes one'


def _best(data: pl.DataFrame, ask: Question) -> pl.DataFrame:
    """Among rows with the same x, those with the value of a column that has the best mean."""
    score = pl.when(pl.col(ask.y).is_finite()).then(pl.col(ask.y)).otherwise(None)
    worst = -float("inf") if ask.error else float("inf")
    mean = score.mean().over([*ask.x, ask.best]).fill_null(worst)  # a failed run counts as the worst
    there = data.with_columns(mean.alias("\0mean"))
    best_mean = pl.col("\0mean").max() if ask.error else pl.col("\0mean").min()
    return there.filter(pl.col("\0mean") == best_mean.over(ask.x)).drop("\0mean")


def _repeated(data: pl.DataFrame, ask: Question) -> list[str]:
    """A note on rows with the same x: they all count, and which other columns distinguish them."""
    same = data.filter(pl.len().over(ask.x) > 1)
    if same.is_empty():
        return []
    others = [name for name in data.columns if name not in (ORIGIN, *ask.x, ask.y)]
    apart = [name for name in others if (same[name].n_unique() > 1)]
    varying = [n for n in apart if same.select((pl.col(n).n_unique().over(ask.x) > 1).any()).item()]
    told = (
        f"; they differ in {', '.join(varying[:6])}{', …' * (len(varying) > 6)} (--best=… takes one)" if varying else ""
    )
    whole = len(data) - data.drop(ORIGIN).unique().height
    twice = f", {whole} of them equal another in every column" if whole else ""
    return [f"{len(same)} rows have their {', '.join(ask.x)} in common with another and all count{twice}{told}"]


_OPERATIONS = "operations, 2 for a multiply-accumulate"
_PUBLISHED = "operations, 1 for a multiply-accumulate (`published` convention)"
UNITS = {
    "params": "parameters of the encoder",
    "params_total": "parameters, with the decoder",
    "flops": f"{_OPERATIONS}, of one image",
    "compute": "share of the uncut encoder's operations",
    "compute_published": "share of the uncut encoder's operations (`published` convention)",
    "samples_seen": "images, with repetitions",
    "images": "images there were to train on",
    "step": "optimizer steps",
    "train_flops": f"{_OPERATIONS}, of the run",
    "train_flops_encoder": f"{_OPERATIONS}, of the run, encoder alone",
    "train_flops_published": f"{_PUBLISHED}, of the run",
    "train_flops_encoder_published": f"{_PUBLISHED}, of the run, encoder alone",
    "core_days": "days of a TPU v3 core at 40 % of its peak",
    "embed": "width of a token",
    "mlp": "hidden units of an MLP",
    "layers": "layers",
    "base_lr": "learning rate of a batch of 256",
}
