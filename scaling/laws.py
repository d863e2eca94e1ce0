"""Fits a scaling law through measured rows, with intervals, and says what the rows do not support.

    python -m scaling.laws ROWS.jsonl [MORE.jsonl …] --x=params --y=eval_loss --form=power --json=law.json --figure=law
    python -m scaling.laws ROWS.jsonl --x=params,samples_seen --y=eval_loss --form=chinchilla --allocate=1e18
    python -m scaling.laws ROWS.jsonl --x=params_total,samples_seen,train_flops --y=eval_loss --form=isoflop

--x names numeric fields of the rows (`scaling.results`), or core_days, as many as the form wants; --y a metric.
--where=key=value keeps only some rows, of a key given twice those with either value. --best=base_lr keeps, of rows
that differ in this field and the seed, those where the mean over seeds is best; --best=step of each run the best step.
The forms: line (a x^-b), power (a x^-b + c), saturating (a (x + d)^-b + c), kaplan, chinchilla, shape, retention, what
these are compared with, and isoflop: parameters, samples and, if it is not six times their product, the compute of runs
at a few budgets, by parabolas and by the law. Losses are fitted as they are; of a score that grows give --error, which
fits 1 - score. Intervals are 95 % of a Bayesian bootstrap over the values of --group, one row each by default; isoflop
draws the rows within each budget.

--at=X[:X2] predicts, of 1e9 or 1B; beyond what was measured only by a factor of ten, and not at all where the fit
warns, unless --extrapolate is given. The interval of the law is where the mean of many runs would lie, that of a single
run is wider. --allocate divides budgets, in the unit of six times parameters times samples, as far. Where any of what
was asked is refused all else is printed and written, and then the exit code is 2.
"""

import dataclasses
import json
import math
from typing import Any

from absl import flags
from etils import epath

from scaling import cli
from scaling.analysis.laws.answers import print_law
from scaling.analysis.laws.columns import Table, best, choose, colours, distinct, mixed, rising, table, wanted
from scaling.analysis.laws.fitting import DELTA
from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.isoflop import isoflop
from scaling.analysis.laws.questions import Questions, questions
from scaling.analysis.laws.report import RESAMPLES, law
from scaling.console import console
from scaling.errors import UserError
from scaling.paths import check_file, user_path, write_whole
from scaling.results import read_rows

ISOFLOP = "isoflop"

_X = flags.DEFINE_list("x", ["params"], "Fields of the rows.")
_Y = flags.DEFINE_string("y", "eval_loss", "Metric.")
_FORM = flags.DEFINE_enum("form", "power", [*FORMS, ISOFLOP], "Which law.")
_WHERE = flags.DEFINE_multi_string("where", [], "key=value, of rows to keep; of a key given again, either value.")
_GROUP = flags.DEFINE_string("group", "", "Field whose rows are resampled together.")
_BEST = flags.DEFINE_string("best", "", "Field, of whose values only the best is fitted, like base_lr.")
_ERROR = flags.DEFINE_bool("error", False, "Fit 1 - value.")
_DELTA = flags.DEFINE_float("delta", DELTA, "Where the Huber loss of log residuals turns linear.")
_RESAMPLES = flags.DEFINE_integer("resamples", RESAMPLES, "Of the bootstrap.")
_AT = flags.DEFINE_list("at", [], "Where to predict.")
_EXTRAPOLATE = flags.DEFINE_bool("extrapolate", False, "Predict however far from what was measured.")
_ALLOCATE = flags.DEFINE_list("allocate", [], "Budgets to divide between parameters and samples.")
_JSON = cli.define_path("json", "", "File for the result.")
_FIGURE = cli.define_path("figure", "", "File for the figure, without ending: .png and .svg are written.")
_COLOUR = flags.DEFINE_string("colour", "", "Field that colours the points of the figure.")


def main(argv: list[str]) -> None:
    asked = _checked(argv)
    there = [row for file in argv[1:] for row in read_rows(user_path("", file))]
    rows, notes = distinct(choose(there, wanted(_WHERE.value), _Y.value))
    if _BEST.value:
        there, rows = rows, best(rows, _BEST.value, _ERROR.value)
        notes.append(f"{len(rows)} of {len(there)} rows have the best {_BEST.value}, the others are not counted")
    data, doubts = table(rows, _X.value, _GROUP.value, _ERROR.value), mixed(rows, _X.value)
    colour = colours(data.rows, _COLOUR.value) if _COLOUR.value else None
    out = console(soft_wrap=True)
    notes += data.warnings
    for note in notes:
        out.print(f"warning: {note}", markup=False)
    # 1 - score is another quantity than the score, wherever it is named.
    y = f"1 - {_Y.value}" if _ERROR.value else _Y.value
    about: dict[str, Any] = {"x": _X.value, "y": y, "error": _ERROR.value, "best": _BEST.value, "notes": notes}
    about["rows"] = len(data.values)
    refused: list[str] = []
    if not _ERROR.value and (_FORM.value == ISOFLOP or not FORMS[_FORM.value].relative):
        doubts += rising(data, _X.value, y)
    if _FORM.value == ISOFLOP:
        about |= _isoflop(data, doubts, y)
    else:
        starts = math.prod(map(len, FORMS[_FORM.value].starts))
        out.print(
            f"fitting {starts} starts of {_FORM.value} to {len(data.values)} rows, then {_RESAMPLES.value} resamples …"
        )
        measured = (data.inputs, data.values, data.groups)
        result = law(_FORM.value, *measured, _DELTA.value, _RESAMPLES.value, names=_X.value)
        result = dataclasses.replace(result, warnings=(*doubts, *result.warnings))
        answers, refused = asked.answers(result, _EXTRAPOLATE.value)
        about |= result.summary() | answers
        if _FIGURE.value:
            from scaling.analysis.laws.figure import draw

            names = (*_X.value, y)
            draw(result, data.inputs, data.values, names, _figure(), colour, _COLOUR.value)
    print_law(out, about)
    if _JSON.value:
        write_whole(_JSON.value, json.dumps(_strict(about), indent=2, allow_nan=False) + "\n")
    if refused:  # only now: what the rows do support is written
        raise UserError(f"{'; '.join(refused)}. --extrapolate does it all the same")


def _checked(argv: list[str]) -> Questions:
    """What was asked; raises a UserError for flags that are wrong whatever the rows say."""
    if len(argv) < 2:
        raise UserError("give a file of rows: python -m scaling.laws ROWS.jsonl --x=params --y=eval_loss")
    if _RESAMPLES.value < 1 or not 0 < _DELTA.value < float("inf"):
        raise UserError("--resamples and --delta must be positive")
    if _FORM.value == ISOFLOP:
        for flag in (_AT, _ALLOCATE, _EXTRAPOLATE, _GROUP, _COLOUR):
            if flag.value:
                raise UserError(f"--form=isoflop does nothing with --{flag.name}; leave it out or choose another form")
        if len(_X.value) not in (2, 3):
            raise UserError("--form=isoflop wants --x=parameters,samples or --x=parameters,samples,compute")
    if _BEST.value in _X.value:
        raise UserError(f"--best={_BEST.value} is an --x too: a law over it needs all of its values")
    if _COLOUR.value and not _FIGURE.value:
        raise UserError("--colour is of the points of a figure; give --figure too")
    for flag in (_JSON, _FIGURE):
        if flag.value:
            check_file(flag.name, flag.value)
    return questions(_FORM.value, _AT.value, _ALLOCATE.value)


def _figure() -> epath.Path:
    """Without the ending that both files get."""
    return epath.Path(_FIGURE.value.removesuffix(".png").removesuffix(".svg"))


def _strict(x: Any) -> Any:
    """For readers that know JSON only: null for what is no finite number."""
    if isinstance(x, dict):
        return {name: _strict(value) for name, value in x.items()}
    if isinstance(x, list | tuple):
        return [_strict(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _isoflop(data: Table, doubts: list[str], y: str) -> dict[str, Any]:
    """Fits and draws profiles of what is called y; their summary."""
    n, d = data.inputs.T[:2]
    compute = data.inputs[:, 2] if data.inputs.shape[1] == 3 else None
    found = isoflop(n, d, data.values, compute, delta=_DELTA.value, count=_RESAMPLES.value)
    found = dataclasses.replace(found, warnings=(*doubts, *found.warnings))
    if _FIGURE.value:
        from scaling.analysis.laws.profiles_figure import draw_profiles

        names = (_X.value[0], "6 N D" if compute is None else _X.value[2], y)
        draw_profiles(found, n, data.values, names, _figure())
    return found.summary()


if __name__ == "__main__":
    cli.run(main, words=True, resumes=False)
