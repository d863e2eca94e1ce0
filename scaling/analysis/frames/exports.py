"""Exports of dashboards, as tables with one row per measurement.

TensorBoard: the CSV and JSON of one curve, which do not contain run or tag (their file name does), and event files.
Weights & Biases: the table of runs is used unchanged; the CSV of a panel has one column per run.
"""

import re
import struct
from collections.abc import Iterator
from typing import Any

import polars as pl
from etils import epath

from scaling.core.files import parse_json

_CURVE = ["Wall time", "Step", "Value"]
_NAMED = re.compile(r"run-(?P<run>.+)-tag-(?P<tag>.+)$")
_PANEL = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<end>__MIN|__MAX)?$")


def tidy(data: pl.DataFrame, name: str) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """A table, converted to one row per measurement if it is recognised as an export of a curve or panel; and a
    description of the conversion.
    """
    if data.columns == _CURVE:
        about = _NAMED.match(name.rsplit(".", 1)[0])
        words = about.groupdict() if about else {"run": name.rsplit(".", 1)[0]}
        return data.with_columns(**{key: pl.lit(word) for key, word in words.items()}), ()
    found = {column: match for column in data.columns[1:] if (match := _PANEL.match(column))}
    ends = {match["end"] for match in found.values()}
    if not {"__MIN", "__MAX"} <= ends or len(found) < data.width - 1:
        return data, ()
    first, parts = data.columns[0], []
    for column, match in found.items():
        if match["end"] is None:
            named = {"run": pl.lit(match["run"])}
            parts.append(data.select(pl.col(first), pl.col(column).alias(match["metric"])).with_columns(**named))
    whole = pl.concat(parts, how="diagonal_relaxed")
    values = [column for column in whole.columns if column not in (first, "run")]
    kept = whole.filter(pl.any_horizontal(pl.col(values).is_not_null()))
    said = f"{name}: a panel of {len(parts)} runs, read as one row a run and {first}; its __MIN and __MAX are not used"
    return kept, (said,)


def tensorboard_json(path: epath.Path) -> pl.DataFrame:
    """TensorBoard's JSON of one curve: [[wall time, step, value], …]."""
    points = parse_json(path.read_text())
    if not isinstance(points, list) or not all(isinstance(p, list) and len(p) == 3 for p in points):
        raise ValueError("not TensorBoard's [[wall time, step, value], …]; a table is JSON Lines (.jsonl)")
    return pl.DataFrame(points, schema=dict.fromkeys(_CURVE, pl.Float64), orient="row")


def is_events(path: epath.Path) -> bool:
    """Whether a file has the name of a TensorBoard event file."""
    return ".tfevents." in path.name


def events_frame(path: epath.Path) -> pl.DataFrame:
    """The scalars of an event file, with one row per step and one column per tag."""
    steps: dict[int, dict[str, float]] = {}
    for event in _events(path.read_bytes()):
        for value in event.summary.value:
            if (x := _scalar(value)) is not None:
                steps.setdefault(event.step, {})[value.tag] = x
    if not steps:
        raise ValueError("it has no scalars")
    names = dict.fromkeys(tag for row in steps.values() for tag in row)
    rows = [{"step": step} | {tag: row.get(tag) for tag in names} for step, row in sorted(steps.items())]
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(run=pl.lit(path.parent.name))


def _events(content: bytes) -> Iterator[Any]:
    """The records of a TFRecord file, whose last one may have been cut short by a kill."""
    from tensorboardX.proto.event_pb2 import Event

    at = 0
    while at + 12 <= len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        if at + 16 + size > len(content):
            return
        yield Event.FromString(content[at + 12 : at + 12 + size])
        at += 16 + size


def _scalar(value: Any) -> float | None:
    """A scalar in the first format or the second (a tensor of one number); None for all others."""
    if value.WhichOneof("value") == "simple_value":
        return float(value.simple_value)
    if value.WhichOneof("value") != "tensor" or value.tensor.tensor_shape.dim:
        return None
    tensor = value.tensor
    for field in (tensor.float_val, tensor.double_val, tensor.int_val, tensor.int64_val):
        if len(field) == 1:
            return float(field[0])
    kinds = {1: ("<f", 4), 2: ("<d", 8)}  # DT_FLOAT, DT_DOUBLE
    code, size = kinds.get(tensor.dtype, ("", 0))
    return float(struct.unpack(code, tensor.tensor_content)[0]) if len(tensor.tensor_content) == size > 0 else None
