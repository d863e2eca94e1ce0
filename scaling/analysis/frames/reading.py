"""Reads files of any columns as frames: CSV, TSV, Parquet, JSON Lines, and exports of TensorBoard and Weights & Biases.

Frames are polars DataFrames: types are exact, expressions are parsed and not run as code, and there are no further
dependencies. Integers become float64, so that a product of parameters and samples does not overflow.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath
from polars import selectors

from scaling.analysis.frames.exports import events_frame, is_events, tensorboard_json, tidy
from scaling.core.errors import UserError, first_line
from scaling.core.files import parse_json

ORIGIN = "\0origin"  # the column that locates a row: FILE, row NUMBER (from 1, without the header)
_OWN = {"study", "metric", "value", "probe", "compute"}  # fields that every row of `scaling.core.rows` has
_NOTHING = ["", "NA", "N/A", "null", "None"]  # empty cells of a CSV; NaN is a number outside the domain of every law


@dataclasses.dataclass(frozen=True)
class Frame:
    """A table from another source.

    Attributes:
      data: its columns, and `ORIGIN`.
      notes: descriptions of its conversions.
    """

    data: pl.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return [name for name in self.data.columns if name != ORIGIN]


def is_own(path: epath.Path) -> bool:
    """Whether a file of JSON Lines begins with a row of `scaling.core.rows`."""
    if path.suffix != ".jsonl" or not path.is_file():
        return False
    with path.open("rb") as file:
        start = next((line for line in file if line.strip()), b"")
    try:
        first = parse_json(start)
    except ValueError:
        return not start.lstrip().startswith(b"{")  # not a table: the reader of rows reports the error
    return not isinstance(first, dict) or set(first) >= _OWN


def read_frame(path: epath.Path) -> Frame:
    """A file as a frame.

    Raises:
      UserError: it does not exist, has an unsupported format, cannot be read, or has no rows.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give one that exists")
    read = events_frame if is_events(path) else _KINDS.get(path.suffix.lower())
    if read is None:
        raise UserError(f"{path}: tables are read from {', '.join(_KINDS)} and TensorBoard's event files; convert it")
    try:
        data = read(path)
    except (pl.exceptions.PolarsError, ValueError, OSError) as e:
        kind = path.suffix.removeprefix(".") or "events"
        raise UserError(f"{path}: cannot be read as {kind}: {first_line(e)}") from e
    if data.is_empty():
        raise UserError(f"{path}: it has no rows")
    data, notes = tidy(data, path.name)
    origin = pl.Series(ORIGIN, [f"{path.name}, row {i}" for i in range(1, len(data) + 1)])
    return Frame(as_numbers(data).with_columns(origin), notes)


def frame_of(table: Any) -> Frame:
    """A frame from columns by name (a dict or a DataFrame of pandas or polars) or from rows as dicts; rows are named by
    their number.

    Raises:
      UserError: columns of different lengths or mixed kinds, or not a table.
    """
    if isinstance(table, list | tuple) and table and all(isinstance(row, dict) for row in table):
        rows, keys = table, dict.fromkeys(name for row in table for name in row)
        table = dict[str, Any]({name: [row.get(name) for row in rows] for name in keys})
    if not hasattr(table, "keys") and not hasattr(table, "columns"):
        raise UserError(f"{_shown(table)}: no measurements; give columns by name, rows as dicts, or paths of files")
    if isinstance(table, pl.DataFrame):
        data = table
    else:
        try:
            names = list(getattr(table, "columns", table))
            data = pl.DataFrame({str(name): np.asarray(table[name]).tolist() for name in names}, strict=False)
        except (pl.exceptions.PolarsError, ValueError, TypeError) as e:
            raise UserError(f"the table has no columns of one length: {first_line(e)}") from e
    if data.is_empty():
        raise UserError("the table has no rows")
    origin = pl.Series(ORIGIN, [f"row {i}" for i in range(1, len(data) + 1)])
    return Frame(as_numbers(data).with_columns(origin))


def _shown(x: Any) -> str:
    """The beginning of a value's repr, in one line."""
    written = " ".join(repr(x).split())
    return written if len(written) <= 60 else f"{written[:60]}…"


def as_numbers(data: pl.DataFrame) -> pl.DataFrame:
    """The frame with integers as float64."""
    return data.with_columns(selectors.numeric().cast(pl.Float64))


def together(frames: Sequence[Frame]) -> Frame:
    """Concatenates frames; columns that one of them lacks are empty there.

    Raises:
      UserError: a column has numbers in one frame and words in another.
    """
    notes = tuple(note for frame in frames for note in frame.notes)
    kinds: dict[str, pl.DataType] = {}
    for frame in frames:
        for name, kind in frame.data.schema.items():
            known = kinds.setdefault(name, kind)
            if known != kind and pl.Null not in (known, kind):
                first = frame.data[ORIGIN][0]
                raise UserError(
                    f"the tables do not fit together: {name} is {kind} in {first} but {known} in an earlier one"
                )
            kinds[name] = kind if known == pl.Null else known
    return Frame(pl.concat([frame.data for frame in frames], how="diagonal_relaxed"), notes)


def _csv(path: epath.Path, separator: str = ",") -> pl.DataFrame:
    content = path.read_bytes()
    _check_utf8(content)
    _check_separator(content, separator)
    header = pl.read_csv(content, separator=separator, has_header=False, n_rows=1, infer_schema=False).row(0)
    if again := sorted({str(name) for name in header if header.count(name) > 1}):
        raise ValueError(f"column {again[0]} occurs twice")
    return pl.read_csv(content, separator=separator, infer_schema_length=None, null_values=_NOTHING)


def _check_utf8(content: bytes) -> None:
    try:
        content.decode()
    except UnicodeDecodeError as e:
        kind = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "Latin-1"
        line = content.count(b"\n", 0, e.start) + 1
        raise ValueError(
            f"the encoding is not UTF-8 (byte {content[e.start]:#x} in line {line}), maybe {kind}; convert it: "
            f"iconv -f {kind.upper()} -t UTF-8 FILE > NEW"
        ) from e


def _check_separator(content: bytes, separator: str) -> None:
    """Raises ValueError if the header uses another separator than this one."""
    header = content.partition(b"\n")[0].decode()
    other = next((sign for sign in (";", "\t", "|") if sign in header), "")
    if other and separator not in header:
        told = {"\t": "tabs", ";": "semicolons"}.get(other, f"'{other}'")
        advice = "name it .tsv" if other == "\t" else "write it with commas, and with points in its decimal numbers"
        raise ValueError(f"the separator of its columns is {told}, not {separator!r}; {advice}")


def _json_lines(path: epath.Path) -> pl.DataFrame:
    return pl.read_ndjson(path.read_bytes(), infer_schema_length=None)


_KINDS: dict[str, Callable[[epath.Path], pl.DataFrame]] = {
    ".csv": _csv,
    ".tsv": lambda path: _csv(path, "\t"),
    ".parquet": lambda path: pl.read_parquet(path.read_bytes()),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": tensorboard_json,
}
