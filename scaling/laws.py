"""Fits a scaling law through measured rows, with intervals, and says what the rows do not support.

    python -m scaling.laws ROWS.jsonl [MORE.jsonl …] --x=params --y=eval_loss --form=power --json=law.json --figure=law
    python -m scaling.laws ROWS.jsonl --x=params,samples_seen --y=eval_loss --form=chinchilla --allocate=1e18
    python -m scaling.laws ROWS.jsonl --x=params_total,samples_seen,train_flops --y=eval_loss --form=isoflop

--x names numeric fields of the rows (`scaling.results`), or core_days, as many as the form wants; --y a metric.
--where=key=value keeps only some rows. The forms: line (a x^-b), power (a x^-b + c), saturating (a (x + d)^-b + c),
kaplan, chinchilla, shape, retention, and isoflop: parameters, samples and, if it is not six times their product, the
compute of runs at a few budgets, by parabolas and by the law. Losses are fitted as they are; of a score that grows give
--error, which fits 1 - score. Intervals are 95 % bootstrap over the values of --group, one row each by default.

--at=X[:X2] predicts; beyond what was measured only by a factor of ten, and not at all where the fit warns, unless
--extrapolate is given. --allocate divides budgets in the unit of six times parameters times samples.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from etils import epath

from scaling import cli
from scaling.analysis.laws.allocation import allocate
from scaling.analysis.laws.answers import print_law, print_parameters
from scaling.analysis.laws.columns import choose, number, table
from scaling.analysis.laws.fitting import DELTA
from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.isoflop import isoflop
from scaling.analysis.laws.report import DECADE, RESAMPLES, Law, law
from scaling.console import console
from scaling.errors import UserError
from scaling.paths import check_file
from scaling.results import read_rows

ISOFLOP = "isoflop"

_X = flags.DEFINE_list("x", ["params"], "Fields of the rows.")
_Y = flags.DEFINE_string("y", "eval_loss", "Metric.")
_FORM = flags.DEFINE_enum("form", "power", [*FORMS, ISOFLOP], "Which law.")
_WHERE = flags.DEFINE_multi_string("where", [], "key=value, of rows to keep.")
_GROUP = flags.DEFINE_string("group", "", "Field whose rows are resampled together.")
_ERROR = flags.DEFINE_bool("error", False, "Fit 1 - value.")
_DELTA = flags.DEFINE_float("delta", DELTA, "Where the Huber loss of log residuals turns linear.")
_RESAMPLES = flags.DEFINE_integer("resamples", RESAMPLES, "Of the bootstrap.")
_AT = flags.DEFINE_list("at", [], "Where to predict.")
_EXTRAPOLATE = flags.DEFINE_bool("extrapolate", False, "Predict however far from what was measured.")
_ALLOCATE = flags.DEFINE_list("allocate", [], "Budgets to divide between parameters and samples.")
_JSON = flags.DEFINE_string("json", "", "File for the result.")
_FIGURE = flags.DEFINE_string("figure", "", "File for the figure, without ending: .png and .svg are written.")
_COLOUR = flags.DEFINE_string("colour", "", "Field that colours the points of the figure.")


def main(argv: list[str]) -> None:
    if len(argv) < 2:
        raise UserError("give a file of rows: python -m scaling.laws ROWS.jsonl --x=params --y=eval_loss")
    if _RESAMPLES.value < 1 or _DELTA.value <= 0:
        raise UserError("--resamples and --delta must be positive")
    for flag in (_JSON, _FIGURE):
        if flag.value:
            check_file(flag.name, flag.value)
    there = [row for file in argv[1:] for row in read_rows(epath.Path(file))]
    rows = choose(there, dict(pair.partition("=")[::2] for pair in _WHERE.value), _Y.value)
    data = table(rows, _X.value, _GROUP.value, _ERROR.value)
    out = console(soft_wrap=True)
    if data.left_out:
        out.print(f"warning: {data.left_out} rows are left out: no law here has values that are not positive")
    about: dict[str, Any] = {"x": _X.value, "y": _Y.value, "rows": len(data.values)}
    if _FORM.value == ISOFLOP:
        if data.inputs.shape[1] not in (2, 3):
            raise UserError("--form=isoflop wants --x=parameters,samples or --x=parameters,samples,compute")
        n, d = data.inputs.T[:2]
        compute = data.inputs[:, 2] if data.inputs.shape[1] == 3 else None
        about |= isoflop(n, d, data.values, compute, count=min(_RESAMPLES.value, 1000)).summary()
        print_parameters(out, about)
    else:
        result = law(_FORM.value, data.inputs, data.values, data.groups, _DELTA.value, _RESAMPLES.value)
        about |= result.summary() | _asked(result)
        if _FIGURE.value:
            from scaling.analysis.laws.figure import draw

            colour = np.array([number(row, _COLOUR.value) for row in data.rows]) if _COLOUR.value else None
            names = (*_X.value, _Y.value)
            draw(result, data.inputs, data.values, names, epath.Path(_FIGURE.value), colour, _COLOUR.value)
        print_parameters(out, about)
        print_law(out, about, result)
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps(about, indent=2) + "\n")


def _asked(result: Law) -> dict[str, Any]:
    """Predictions and allocations that were asked for."""
    answers: dict[str, Any] = {}
    if _AT.value:
        try:
            points = np.array([[float(x) for x in point.split(":")] for point in _AT.value])
        except ValueError as e:
            raise UserError(f"--at={','.join(_AT.value)}: numbers like 1e9, or 1e9:2e6 for two inputs") from e
        found = result.at(points)
        far = max(p.beyond for p in found)
        if not _EXTRAPOLATE.value and (far > DECADE or (far > 1 and result.warnings)):
            why = "; ".join(result.warnings) or f"that is {far:.3g} times beyond what was measured"
            raise UserError(f"--at={','.join(_AT.value)} is not predicted: {why}. --extrapolate does it all the same")
        answers["predictions"] = [dataclasses.asdict(p) for p in found]
    if _ALLOCATE.value:
        answers["allocations"] = [dataclasses.asdict(allocate(result, float(c))) for c in _ALLOCATE.value]
    return answers


if __name__ == "__main__":
    cli.run(main)
