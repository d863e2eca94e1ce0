"""Fits a scaling law to measured rows, with intervals, and warns of conclusions that the rows do not support.

    python -m scaling.laws ROWS.jsonl [MORE.jsonl …] --x=params --y=eval_loss --form=power --json=law.json --figure=law
    python -m scaling.laws ROWS.jsonl --x=params,samples_seen --y=eval_loss --form=chinchilla --allocate=1e18
    python -m scaling.laws ROWS.jsonl --x=params_total,samples_seen,train_flops --y=eval_loss --form=isoflop
    python -m scaling.laws THEIRS.csv --column='N=`Model Size`' --column='D=`Training FLOP`/6/N' --where='loss<5' \\
        --x=N,D --y=loss --form=chinchilla

Reads rows of this package (`scaling.core.rows`); tables of any columns (CSV, TSV, Parquet, JSON Lines); exports of
Weights & Biases and of TensorBoard, and event files; and folders of rows or of working directories, of which it takes
the final and the best values. For rows of this package, --x names numeric fields, or core_days, and --y a metric; for a
table, both name columns. --column=NAME=EXPRESSION computes a column from others (polars' SQL: + - * /, ln, power, case
…). --where keeps only some rows: NAME=VALUE (if a name is given twice, rows with either value), NAME<NUMBER and so on,
or an expression. --best=base_lr compares rows that differ only in this field and the seed (in a table: rows of the same
--x), and keeps the value with the best mean over seeds. --best=step keeps the best step of each run. --envelope=BINS
divides --x into bins, and fits the best row of each.

The forms are line (a x^-b), power (a x^-b + c), saturating (a (x + d)^-b + c), kaplan, chinchilla, shape and retention,
with simpler forms to compare them with. isoflop is for runs at a few budgets, by parabolas and by the law; its --x are
parameters, samples and, if it is not six times their product, compute. From later papers there are one_exponent
(Chinchilla's with alpha = beta), data_constrained (of parameters, samples and unique samples: Muennighoff et al.),
overtraining (of compute and samples per parameter: Gadre et al.), and broken (one break: Caballero et al.; its AICc
checks power). Losses are fitted as they are; for a score where higher is better, use --error, which fits 1 - score. The
fit minimises Huber's loss of log residuals, or least squares with --delta=10; the exponents with the other loss are
printed too. Intervals are 95 % intervals of a Bayesian bootstrap, which resamples the groups of rows with the same
value of --group (by default, single rows); isoflop resamples the rows within each budget.

--at=X predicts the value at an input, written as 1e9 or 1B; if the form has several inputs, they are separated by
colons, as in 1B:20B. Predictions are limited to ten times the measured range or, if the fit has warnings, to the
measured range itself; --extrapolate lifts both limits. Each prediction has two intervals: one for the mean of many
runs, and a wider one for a single run. --allocate=C divides a budget C = 6 N D between parameters N and samples D,
under the same limits. If a prediction or an allocation is refused, everything else is still printed and written, and
the exit code is 2.
"""

import dataclasses
import json
import math
from typing import Any

from etils import epath

from scaling import cli
from scaling.analysis.laws.choosing import Question
from scaling.analysis.laws.columns import LawData, rising
from scaling.analysis.laws.fitting import DELTA, check_settings
from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.isoflop import isoflop
from scaling.analysis.laws.predictions import Questions, questions
from scaling.analysis.laws.printing import print_law
from scaling.analysis.laws.report import RESAMPLES, law
from scaling.core.console import console
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_file, user_path
from scaling.studies.laws import choose_from

ISOFLOP = "isoflop"


def define_flags(define: cli.Define) -> None:
    define.list("x", ["params"], "Fields of the rows, or columns of a table.")
    define.string("y", "eval_loss", "Metric, or column of a table.")
    define.multi_string("column", [], "NAME=EXPRESSION, a column computed from others.")
    define.enum(
        "form", "power", [*FORMS, ISOFLOP], "Formula to fit: power is a x^-b + c; the others are described above."
    )
    define.multi_string(
        "where", [], "Rows to keep: NAME=VALUE (repeating a name keeps any of its values), NAME<NUMBER, …"
    )
    define.string("group", "", "Field whose rows are resampled together.")
    define.string("best", "", "Field, such as base_lr, of which only the best value is fitted.")
    define.string(
        "envelope",
        "",
        "Number of bins of x; the best row of each is fitted, with BINS:centre at the centre of the bin.",
    )
    define.bool("error", False, "Fit 1 - y, for a score that grows.")
    define.float("delta", DELTA, "Log residual beyond which the Huber loss is linear; 10 for least squares.")
    define.integer("resamples", RESAMPLES, "Number of bootstrap resamples.")
    define.list("at", [], "Inputs to predict at.")
    define.bool("extrapolate", False, "Predict at any distance from the measured range.")
    define.list("allocate", [], "Budgets to divide between parameters and samples.")
    define.path("json", "", "File for the result.")
    define.path("figure", "", "File for the figure, without extension: .png, .svg and .pdf are written.")
    define.string("colour", "", "Field that colours the points of the figure.")


@cli.command(define_flags, words=True, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    asked = _checked(flags, argv)
    found, passed_over = choose_from(argv[1:], _question(flags))
    data, doubts, colour = found.data, list(found.doubts), found.colour
    notes = [*(f"passed over: {line}" for line in passed_over), *found.notes]
    out = console(soft_wrap=True)
    for note in notes:
        out.print(f"warning: {note}", markup=False)
    # With --error the quantity is 1 - score, and is named so everywhere.
    y = f"1 - {flags.y}" if flags.error else flags.y
    about: dict[str, Any] = {"x": flags.x, "y": y, "error": flags.error, "best": flags.best, "notes": notes}
    about |= {"rows": len(data.values), "units": found.units, "envelope": flags.envelope}
    refused: list[str] = []
    if not flags.error and (flags.form == ISOFLOP or not FORMS[flags.form].relative):
        doubts += rising(data, flags.x, y)
    if flags.form == ISOFLOP:
        about |= {"loss": {"delta": flags.delta}} | _isoflop(flags, data, doubts, y)
    else:
        starts = math.prod(map(len, FORMS[flags.form].starts))
        out.print(
            f"fitting {starts} starts of {flags.form} to {len(data.values)} rows, then {flags.resamples} resamples …"
        )
        measured = (data.inputs, data.values, data.groups)
        result = law(flags.form, *measured, flags.delta, flags.resamples, names=flags.x, known=doubts)
        answers, refused = asked.answers(result, flags.extrapolate)
        about |= result.summary() | answers
        if flags.figure:
            from scaling.analysis.laws.figure import draw

            names = (*flags.x, y)
            draw(result, data.inputs, data.values, names, _figure(flags), colour, flags.colour)
    print_law(out, about)
    if flags.json:
        write_whole(flags.json, json.dumps(_strict(about), indent=2, allow_nan=False) + "\n")
    if refused:  # only now, after everything else has been written
        raise UserError(f"{'; '.join(refused)}; give --extrapolate to predict anyway")


def _question(flags: cli.Flags) -> Question:
    words = ("x", "y", "where", "group", "best", "error", "colour", "envelope")
    asked: dict[str, Any] = {name: flags[name].value for name in words}
    return Question(columns=flags.column, **asked)


def _checked(flags: cli.Flags, argv: list[str]) -> Questions:
    """The questions that the flags ask; raises a UserError for flags that are wrong for any rows."""
    if len(argv) < 2:
        raise UserError("give a file of rows: python -m scaling.laws ROWS.jsonl --x=params --y=eval_loss")
    check_settings(flags.delta, flags.resamples, "--")
    if flags.form == ISOFLOP:
        for name in ("at", "allocate", "extrapolate", "group", "colour", "envelope"):
            if flags[name].value:
                raise UserError(f"--{name}: has no effect with --form=isoflop; leave it out, or choose another form")
        if len(flags.x) not in (2, 3):
            raise UserError("--form=isoflop needs --x=parameters,samples or --x=parameters,samples,compute")
    if flags.best in flags.x:
        raise UserError(f"--best={flags.best} is also an --x: a law over it needs all of its values")
    if flags.colour and not flags.figure:
        raise UserError("--colour: needs a figure; give --figure too")
    reads = {"an input": [user_path("", argument) for argument in argv[1:]]}
    for name in ("json", "figure"):
        if flags[name].value:
            check_file(name, flags[name].value, reads)
    return questions(flags.form, flags.at, flags.allocate)


def _figure(flags: cli.Flags) -> epath.Path:
    """Path of --figure without an ending, which each format adds."""
    return epath.Path(flags.figure.removesuffix(".png").removesuffix(".svg").removesuffix(".pdf"))


def _strict(x: Any) -> Any:
    """Valid JSON: numbers that are not finite become null."""
    if isinstance(x, dict):
        return {name: _strict(value) for name, value in x.items()}
    if isinstance(x, list | tuple):
        return [_strict(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _isoflop(flags: cli.Flags, data: LawData, doubts: list[str], y: str) -> dict[str, Any]:
    """Fits and draws isoFLOP profiles of the metric y; returns their summary."""
    n, d = data.inputs.T[:2]
    compute = data.inputs[:, 2] if data.inputs.shape[1] == 3 else None
    found = isoflop(n, d, data.values, compute, delta=flags.delta, count=flags.resamples)
    found = dataclasses.replace(found, warnings=(*doubts, *found.warnings))
    if flags.figure:
        from scaling.analysis.laws.profiles_figure import draw_profiles

        names = (flags.x[0], "6 N D" if compute is None else flags.x[2], y)
        draw_profiles(found, n, data.values, names, _figure(flags))
    return found.summary()


if __name__ == "__main__":
    cli.run(main)
