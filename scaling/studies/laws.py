"""Fits a law to any source of measured numbers, in one call."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from scaling.analysis.frames.reading import frame_of
from scaling.analysis.laws.choosing import Chosen, Question, choose_numbers
from scaling.analysis.laws.columns import rising
from scaling.analysis.laws.fitting import DELTA, check_settings, known_form
from scaling.analysis.laws.report import RESAMPLES, Law, law
from scaling.core.paths import user_path
from scaling.core.wording import for_python
from scaling.studies.measurements import read_measurements


def choose_from(paths: Iterable[epath.PathLike], ask: Question) -> tuple[Chosen, list[str]]:
    """The numbers in files and folders, see `choose_numbers`, and a description of what was skipped."""
    read = [read_measurements(user_path("", path)) for path in paths]
    passed_over = [line for _, said in read for line in said]
    return choose_numbers([source for source, _ in read], ask), passed_over


@for_python
def fit_law(
    measured: Any,
    x: str | Sequence[str] = "params",
    y: str = "eval_loss",
    form: str = "power",
    *,
    where: Sequence[str] = (),
    columns: Sequence[str] = (),
    group: str = "",
    best: str = "",
    error: bool = False,
    envelope: str = "",
    delta: float = DELTA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Law:
    """Fits a law of one form. The arguments correspond to the flags of `python -m scaling.laws`.

    Args:
      measured: columns by name (a dict, or a DataFrame of pandas or polars); a list of rows (dicts); or one or several
        paths: files of rows of this package, tables of any columns, folders of rows or of runs.
      x: names of the inputs, one or several.
      y: name of the metric, or of the column.
      form: one of `scaling.analysis.laws.forms.FORMS`; isoflop is available only in the command.
      where, columns, group, best, error, envelope: see `scaling.analysis.laws.choosing.Question`.
      delta: log residual beyond which the Huber loss is linear; 10 for least squares.
      resamples: number of bootstrap resamples.
      seed: seed of the bootstrap.

    Returns:
      The law; its warnings first name the rows that were left out or pooled.

    Raises:
      UserError: an unreadable file, an unknown name, or numbers outside the domain of every law.

    >>> measured = {"params": [1e6, 3e6, 1e7, 3e7, 1e8], "loss": [0.9, 0.74, 0.62, 0.54, 0.48]}
    >>> law = scaling.fit_law(measured, y="loss", form="power", resamples=50)
    >>> law  # doctest: +ELLIPSIS
    Law(a x^-b + c: a = ..., b = ..., c = ...; 5 rows...)
    >>> 0.4 < law.at([3e8])[0].value < 0.48
    True
    """
    known_form(form)
    check_settings(delta, resamples)
    names = [x] if isinstance(x, str) else list(x)
    ask = Question(names, y, where, columns, group, best, error, envelope=envelope)
    if isinstance(measured, str | os.PathLike):
        measured = [measured]
    elif isinstance(measured, Iterable) and not hasattr(measured, "keys") and not hasattr(measured, "columns"):
        measured = list(measured)
    if isinstance(measured, list) and measured and all(isinstance(one, str | os.PathLike) for one in measured):
        found, passed_over = choose_from(measured, ask)
    else:
        found, passed_over = choose_numbers([frame_of(measured)], ask), list[str]()
    said = (*(f"passed over: {line}" for line in passed_over), *found.notes, *found.doubts)
    if not error and not known_form(form).relative:
        said += (*rising(found.data, names, y),)
    return law(form, found.data.inputs, found.data.values, found.data.groups, delta, resamples, seed, names, said)
