"""Fits a scaling law through measured rows, with intervals, and says what the rows do not support.

    python -m scaling.laws ROWS.jsonl --x=params --y=eval_loss --form=power --json=law.json --figure=law
    python -m scaling.laws ROWS.jsonl --x=params,samples_seen --y=eval_loss --form=chinchilla

--x names fields of the rows (`scaling.results`), one or two as the form wants; --y a metric. --where=key=value keeps
only some rows. The forms: line (a x^-b), power (a x^-b + c), saturating (a (x + d)^-b + c), kaplan, chinchilla and
shape. Losses are fitted as they are; of a score that grows give --error, which fits 1 - score. Intervals are 95 %
bootstrap over the values of --group, one row each by default.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from etils import epath
from rich.console import Console
from rich.table import Table

from scaling import cli
from scaling.analysis.laws.fitting import DELTA
from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.report import RESAMPLES, Law, law
from scaling.errors import UserError
from scaling.results import Row, read_rows

_X = flags.DEFINE_list("x", ["params"], "Fields of the rows.")
_Y = flags.DEFINE_string("y", "eval_loss", "Metric.")
_FORM = flags.DEFINE_enum("form", "power", list(FORMS), "Which law.")
_WHERE = flags.DEFINE_list("where", [], "key=value, of rows to keep.")
_GROUP = flags.DEFINE_string("group", "", "Field whose rows are resampled together.")
_ERROR = flags.DEFINE_bool("error", False, "Fit 1 - value.")
_DELTA = flags.DEFINE_float("delta", DELTA, "Where the Huber loss of log residuals turns linear.")
_RESAMPLES = flags.DEFINE_integer("resamples", RESAMPLES, "Of the bootstrap.")
_JSON = flags.DEFINE_string("json", "", "File for the result.")
_FIGURE = flags.DEFINE_string("figure", "", "File for the figure, without ending: .png and .svg are written.")


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise UserError("give one file of rows: python -m scaling.laws ROWS.jsonl --x=params --y=eval_loss")
    if _RESAMPLES.value < 1 or _DELTA.value <= 0:
        raise UserError("--resamples and --delta must be positive")
    rows = _chosen(read_rows(epath.Path(argv[1])))
    inputs = np.array([[_number(row, name) for name in _X.value] for row in rows])
    values = np.array([1 - (row.value or 0.0) if _ERROR.value else row.value for row in rows], np.float64)
    groups = [getattr(row, _GROUP.value) for row in rows] if _GROUP.value else None
    result = law(_FORM.value, inputs, values, groups, _DELTA.value, _RESAMPLES.value)
    about = {"x": _X.value, "y": _Y.value, "rows": len(rows), **result.summary()}
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(about, indent=2) + "\n")
    if _FIGURE.value:
        from scaling.analysis.laws.figure import draw

        draw(result, inputs, values, (*_X.value, _Y.value), epath.Path(_FIGURE.value))
    _show(about, result)


def _chosen(rows: list[Row]) -> list[Row]:
    wanted = dict(pair.partition("=")[::2] for pair in _WHERE.value)
    for name in (*wanted, *_X.value, *([_GROUP.value] if _GROUP.value else [])):
        if name not in Row.__dataclass_fields__:
            raise UserError(f"{name} is no field of the rows; they are {', '.join(Row.__dataclass_fields__)}")
    kept = [row for row in rows if all(str(getattr(row, name)) == value for name, value in wanted.items())]
    found = [row for row in kept if row.metric == _Y.value and row.value is not None]
    if not found:
        metrics = sorted({row.metric for row in kept})
        raise UserError(f"no row has --y={_Y.value}; the metrics are {', '.join(metrics) or 'none'}")
    return found


def _number(row: Row, name: str) -> float:
    value = getattr(row, name)
    if isinstance(value, str):
        raise UserError(f"--x={name} is no number: {value}")
    return float(value)


def _show(about: dict[str, Any], result: Law) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{about['y']} = {about['formula']}, {about['rows']} rows", markup=False)
    table = Table("", "value", "95 % interval")
    for name, p in about["parameters"].items():
        table.add_row(name, f"{p['value']:.4g}", f"{p['low']:.4g} to {p['high']:.4g}")
    console.print(table)
    if result.held_out:
        console.print(
            f"held out: the {result.held_out['rows']} largest, predicted from the others, are off by "
            f"{result.held_out['rms_log_error']:.2%} (root mean square)"
        )
    for name, worse in result.simpler.items():
        console.print(f"{FORMS[name].formula}: AICc {worse:+.1f} against this form")
    for warning in result.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)


if __name__ == "__main__":
    cli.run(main)
