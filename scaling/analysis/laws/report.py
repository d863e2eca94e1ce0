"""A fitted law with its uncertainty: a fit with resamples and diagnostics."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scaling.analysis.laws.diagnostics import (
    FEW_GROUPS,
    against_others,
    doubts,
    extrapolation_error,
    not_believed,
    residuals,
)
from scaling.analysis.laws.fitting import (
    DELTA,
    LEAST_SQUARES,
    Fit,
    check_settings,
    columns,
    fit,
    known_form,
    places,
    refits,
    resamples,
)
from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.intervals import interval
from scaling.analysis.laws.projection import LINEAR, project
from scaling.analysis.laws.variation import Ray, check_varies, ray_of, undetermined

RESAMPLES = 4000  # Besiroglu et al., 2404.10102
NOTHING = 1e-6  # an offset below this share of the smallest value (or input) is 0
CLEAR = 10.0  # difference in the criterion beyond which another form is clearly better (Burnham and Anderson, 2004)
EXACT = 1e-6  # residuals below this are free of noise, and do not discriminate between forms


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction of a law at one point.

    Attributes:
      inputs: inputs of the point.
      value, low, high: the prediction and the 95 % interval of the law, that is, of the mean of many runs there.
      run_low, run_high: the 95 % interval of one further run there, with the scatter of single runs about the law.
      beyond: factor by which the point exceeds the measured range; 1 inside it.
    """

    inputs: tuple[float, ...]
    value: float
    low: float
    high: float
    run_low: float
    run_high: float
    beyond: float


@dataclasses.dataclass(frozen=True, repr=False)
class Law:
    """A fit with its uncertainty.

    Attributes:
      fit: the fit to all rows.
      thetas: optimiser's vectors of the bootstrap resamples [m, p].
      warnings: conclusions that the data do not support, in words.
      held_out: errors of predicting the larger rows from the smaller ones; empty if there are too few.
      against: name of another form with the same inputs -> increase of its information criterion (negative if better).
      span: smallest and largest of each input [2, k].
      residuals: see `residuals`.
      projected: the constants by variable projection, for forms that support it.
      smallest: smallest of the values.
      rows: number of rows.
      undetermined: names of the constants that these inputs cannot determine, whatever the values.
      ray: the line along which the inputs vary together, if they do.
      delta: threshold of the Huber loss that was minimised.
      otherwise: exponents under the other loss: least squares, or Huber's with `DELTA` if that was chosen.
    """

    fit: Fit
    thetas: np.ndarray
    warnings: tuple[str, ...]
    held_out: dict[str, float]
    against: dict[str, float]
    span: np.ndarray
    residuals: dict[str, float]
    projected: dict[str, float]
    smallest: float
    rows: int
    undetermined: tuple[str, ...] = ()
    ray: Ray | None = None
    delta: float = DELTA
    otherwise: dict[str, float] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        constants = ", ".join(f"{name} = {value:.4g}" for name, value in self.fit.constants.items())
        warned = f", {len(self.warnings)} warnings" if self.warnings else ""
        return f"Law({FORMS[self.fit.form].formula}: {constants}; {self.rows} rows{warned})"

    def band(self, inputs: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Interval of the law (not of single measurements) at inputs: two arrays [n]."""
        return interval(self.fit.predict(inputs, self.thetas))

    def beyond(self, inputs: ArrayLike) -> np.ndarray:
        """Factor by which inputs [n] or [n, k] exceed the measured range, 1 inside it: [n]."""
        logs, (low, high) = columns(inputs, FORMS[self.fit.form]), np.log(self.span)
        outside = np.maximum(logs - high, low - logs).max(1).clip(0)
        return np.exp(outside if self.ray is None else np.maximum(outside, self.ray.off(logs)))

    def run_band(self, inputs: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Interval of one further run at inputs: two arrays [n]. The scatter of a run is estimated from the residuals,
        with rows minus constants as degrees of freedom; outside the measured range, from the held-out error if that is
        larger.
        """
        freedom = max(self.rows - len(self.fit.theta), 1)
        inside = self.residuals["rms"] * np.sqrt(self.rows / freedom)
        outside = max(inside, self.held_out.get("rms_log_error", 0.0))
        scatter = np.where(self.beyond(inputs) > 1, outside, inside)
        with np.errstate(all="ignore"):  # of a resample that determines nothing
            drawn = np.log(self.fit.predict(inputs, self.thetas))
            drawn = np.tile(drawn, (-(-RESAMPLES // len(drawn)), 1))
            single = np.random.default_rng(0).standard_t(freedom, size=(len(drawn), 1))
            return interval(np.exp(drawn + scatter * single))

    def at(self, inputs: ArrayLike) -> list[Prediction]:
        """Predictions at inputs: a number, [n] or [n, k]; words like "1B" are accepted."""
        points = places(inputs, FORMS[self.fit.form])
        if not len(points):
            return []
        beyond = self.beyond(points)
        numbers = np.stack([self.fit.predict(points), *self.band(points), *self.run_band(points), beyond], axis=1)
        return [Prediction(tuple(map(float, x)), *map(float, row)) for x, row in zip(points, numbers, strict=True)]

    def summary(self) -> dict[str, Any]:
        """JSON: form, formula, parameters with intervals, diagnostics."""
        law = FORMS[self.fit.form]
        with np.errstate(all="ignore"):  # of a resample that determines nothing
            drawn = law.constants(self.thetas, *self.fit.centre)
        parameters: dict[str, dict[str, float | None]] = {}
        for name, value in self.fit.constants.items():
            low, high = interval(drawn[name])
            three = (value, float(low), float(high))
            known = [None if name in self.undetermined else self._or_nothing(name, x) for x in three]
            parameters[name] = dict(zip(("value", "low", "high"), known, strict=True))
        return {
            "form": self.fit.form,
            "formula": law.formula,
            "parameters": parameters,
            "loss": {
                "delta": self.delta,
                "other_delta": other_delta(self.delta),
                "exponents": {name: self.fit.constants[name] for name in self.otherwise},
                "exponents_by_the_other": self.otherwise,
            },
            "objective": self.fit.objective,
            "gradient": self.fit.gradient,
            "agreeing_starts": self.fit.agreeing,
            "residuals": self.residuals,
            "variable_projection": self.projected,
            "held_out": self.held_out,
            "aicc_over_this": self.against,
            "advice": self.advice(),
            "warnings": list(self.warnings),
        }

    def _or_nothing(self, name: str, x: float) -> float:
        """A constant; 0 for an offset too small to be visible in any measured number."""
        law = FORMS[self.fit.form]
        unit = {law.offset: self.smallest, "d": float(self.span[0, 0])}.get(name)
        return x if unit is None or not x < NOTHING * unit else 0.0

    def advice(self) -> list[str]:
        """Recommendations of other forms, in words."""
        law, said = FORMS[self.fit.form], list[str]()
        if self.undetermined:
            return said
        for name, value in self.fit.constants.items():
            if name not in (law.offset, "d") or self._or_nothing(name, value) != 0:
                continue
            offset = name == law.offset and law.simpler and not law.relative and not FORMS[law.simpler].offset
            said.append(f"{name} is not needed" + (f": --form={law.simpler}" if offset or name == "d" else ""))
        if self.against:
            best = min(self.against, key=lambda name: self.against[name])
            better = f"{FORMS[best].formula}: --form={best}" if self.against[best] < 0 else "this one"
            said.append(f"the best of these forms by AICc is {better}")
        return said


def law(
    form: str,
    inputs: ArrayLike,
    values: ArrayLike,
    groups: ArrayLike | None = None,
    delta: float = DELTA,
    count: int = RESAMPLES,
    seed: int = 0,
    names: Sequence[str] = (),
    known: Sequence[str] = (),
) -> Law:
    """Fits a form, with intervals, diagnostics and warnings.

    Args:
      form: name of one of FORMS.
      inputs: [n] or [n, k], positive.
      values: [n], positive.
      groups: [n], group of each row, such as its run; groups are resampled as a whole.
      delta: threshold of the Huber loss.
      count: bootstrap resamples.
      seed: seed of the resamples.
      names: names of the inputs in messages; those of the form by default.
      known: known doubts about the rows, in words, which become the first warnings.

    Raises:
      UserError: see `fit`; or an input that is constant, a delta or count that is not positive.
    """
    check_settings(delta, count)
    x, names = np.exp(columns(inputs, known_form(form))), names or FORMS[form].inputs
    check_varies(form, x, names)
    fitted = fit(form, inputs, values, delta)
    groups = np.arange(len(np.asarray(values))) if groups is None else np.asarray(groups)
    thetas = refits(fitted, inputs, values, resamples(groups, count, seed), delta)
    others = against_others(fitted, inputs, values, delta)
    span = np.stack([x.min(0), x.max(0)])
    left = residuals(fitted, inputs, values)
    open_constants = undetermined(form, x, names, list(fitted.constants))
    projected = project(form, inputs, values) if form in LINEAR and not open_constants else {}
    nowhere = tuple(dict.fromkeys(name for which in open_constants.values() for name in which))
    warnings = [*known, *open_constants, *doubts(fitted, inputs, values, left)]
    warnings += not_believed(fitted, thetas, nowhere)
    if others and min(others.values()) < -CLEAR and left["rms"] > EXACT:
        best = min(others, key=lambda name: others[name])
        warnings.append(f"{FORMS[best].formula} (--form={best}) is better by far, by {-others[best]:.1f} of AICc")
    if (there := len(np.unique(groups))) < FEW_GROUPS:
        warnings.append(f"{there} groups are resampled: the intervals say little below {FEW_GROUPS}")
    return Law(
        fit=fitted,
        thetas=thetas,
        warnings=tuple(warnings),
        held_out=extrapolation_error(form, inputs, values, delta),
        against=others,
        span=span,
        residuals=left,
        projected=projected,
        smallest=float(np.min(values)),
        rows=len(x),
        undetermined=nowhere,
        ray=ray_of(x),
        delta=delta,
        otherwise=_otherwise(fitted, inputs, values, delta, nowhere),
    )


def other_delta(delta: float) -> float:
    """The other loss: least squares for Huber's, Huber's for least squares."""
    return LEAST_SQUARES if delta < 1 else DELTA


def _otherwise(
    fitted: Fit, inputs: ArrayLike, values: ArrayLike, delta: float, nowhere: Sequence[str]
) -> dict[str, float]:
    """The exponents under the other loss, started from the fit and from others near it."""
    form = FORMS[fitted.form]
    names = [name for name in (*form.exponents, "N_opt_exponent", "s") if name not in nowhere]
    theta = refits(fitted, inputs, values, np.ones((1, len(np.asarray(values)))), other_delta(delta))[0]
    with np.errstate(all="ignore"):  # of rows that determine nothing
        found = form.constants(theta, *fitted.centre)
        return {name: float(found[name]) for name in names if name in found}
