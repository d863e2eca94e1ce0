"""What a fitted law says, how sure it is, and where it should not be believed."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scaling.analysis.laws.fitting import DELTA, Fit, columns, fit, known_form, refits, resamples
from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.intervals import interval
from scaling.analysis.laws.projection import LINEAR, project
from scaling.analysis.laws.variation import Ray, check_varies, ray_of, undetermined

RESAMPLES = 4000  # Besiroglu et al., 2404.10102
FLAT = 1e-6  # smallest over largest curvature, below which a direction is open
DECADE = 10.0
HELD_OUT = 0.25  # share of the rows, the largest, that the smaller ones must predict
NOTHING = 1e-6  # an offset below this share of the smallest value (or input) is 0
CLEAR = 10.0  # by which another form's criterion is better beyond doubt (Burnham and Anderson, 2004)
EXACT = 1e-6  # residuals of numbers that have no noise: what is left tells nothing of forms
FEW_GROUPS = 5  # with fewer, all resamples are mixtures of the same few


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a law says at one place.

    Attributes:
      inputs: the place.
      value, low, high: the prediction and the 95 % interval of the law, which a mean of many runs there is in.
      run_low, run_high: the 95 % interval of one more run there: with the scatter of single runs about the law.
      beyond: the factor by which the place lies outside of what was measured; 1 inside.
    """

    inputs: tuple[float, ...]
    value: float
    low: float
    high: float
    run_low: float
    run_high: float
    beyond: float


@dataclasses.dataclass(frozen=True)
class Law:
    """A fit with its uncertainty.

    Attributes:
      fit: to all rows.
      thetas: of the bootstrap resamples [m, p].
      warnings: what the data do not support, in words.
      held_out: what the smaller rows predict of the larger ones; empty where there are too few.
      against: name of another form of the same inputs -> how much its information criterion is worse (negative: it is
        better).
      span: smallest and largest of each input [2, k].
      residuals: see `residuals`.
      projected: the constants by variable projection, of a form that has one.
      smallest: of the values.
      rows: their number.
      undetermined: names of the constants that such rows cannot determine, whatever was measured.
      ray: how the inputs rise together, if they do.
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

    def band(self, inputs: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Interval of the law (not of single measurements) at inputs: two arrays [n]."""
        return interval(self.fit.predict(inputs, self.thetas))

    def beyond(self, inputs: ArrayLike) -> np.ndarray:
        """The factor by which inputs [n] or [n, k] lie outside of what was measured, 1 inside: [n]."""
        logs, (low, high) = columns(inputs, FORMS[self.fit.form]), np.log(self.span)
        outside = np.maximum(logs - high, low - logs).max(1).clip(0)
        return np.exp(outside if self.ray is None else np.maximum(outside, self.ray.off(logs)))

    def run_band(self, inputs: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Interval of one more run at inputs: two arrays [n]. What a run is off by is taken from the residuals, with as
        many degrees of freedom as there are rows more than constants; beyond what was measured from the held-out error,
        where that is larger.
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
        """What the law says at inputs [n] or [n, k]."""
        beyond = self.beyond(inputs)
        numbers = np.stack([self.fit.predict(inputs), *self.band(inputs), *self.run_band(inputs), beyond], axis=1)
        points = np.asarray(inputs, np.float64).reshape(len(beyond), -1)
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
        """A constant, 0 where it is an offset that no measured number would show."""
        law = FORMS[self.fit.form]
        unit = {law.offset: self.smallest, "d": float(self.span[0, 0])}.get(name)
        return x if unit is None or not x < NOTHING * unit else 0.0

    def advice(self) -> list[str]:
        """What another form would do better, in words."""
        law, said = FORMS[self.fit.form], list[str]()
        if self.undetermined:
            return said
        for name, value in self.fit.constants.items():
            if name not in (law.offset, "d") or self._or_nothing(name, value) != 0:
                continue
            offset = name == law.offset and not law.relative and not FORMS[law.simpler].offset
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
) -> Law:
    """Fits a form and says how far to trust it.

    Args:
      form: name of one of FORMS.
      inputs: [n] or [n, k], positive.
      values: [n], positive.
      groups: [n], rows of the same run have the same; resampled together.
      delta: of the Huber loss.
      count: bootstrap resamples.
      seed: of them.
      names: of the inputs, in messages about what varies; those of the form by default.

    Raises:
      UserError: see `fit`; an input that is the same in all rows.
    """
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
    warnings = [*open_constants, *doubts(fitted, inputs, left)]
    if others and min(others.values()) < -CLEAR and left["rms"] > EXACT:
        best = min(others, key=lambda name: others[name])
        warnings.append(f"{FORMS[best].formula} (--form={best}) is better by far, by {-others[best]:.1f} of AICc")
    if (there := len(np.unique(groups))) < FEW_GROUPS:
        warnings.append(f"{there} groups are resampled: the intervals say little below {FEW_GROUPS}")
    return Law(
        fit=fitted,
        thetas=thetas,
        warnings=tuple(warnings),
        held_out=held_out(form, inputs, values, delta),
        against=others,
        span=span,
        residuals=left,
        projected=projected,
        smallest=float(np.min(values)),
        rows=len(x),
        undetermined=tuple(dict.fromkeys(name for which in open_constants.values() for name in which)),
        ray=ray_of(x),
    )


def residuals(fitted: Fit, inputs: ArrayLike, values: ArrayLike) -> dict[str, float]:
    """What the fit leaves, log(value / prediction): its size `rms`, its `largest`, and for every input `shared_NAME`,
    how much neighbours along it have in common (lag-one autocorrelation: near 0 where the form is right).
    """
    left = np.log(np.asarray(values, np.float64)) - np.log(fitted.predict(inputs))
    size = float(np.sum(left**2))
    found = {"rms": float(np.sqrt(np.mean(left**2))), "largest": float(left[np.abs(left).argmax()])}
    # Rows that have an input in common come in any order, lest what is wrong along another shows here.
    mixed = np.random.default_rng(0).permutation(len(left))
    law = FORMS[fitted.form]
    for name, column in zip(law.inputs, columns(inputs, law).T, strict=True):
        ordered = left[np.lexsort((mixed, column))]
        found[f"shared_{name}"] = float(ordered[1:] @ ordered[:-1]) / size if size > 1e-18 * len(left) else 0.0
    return found


def aicc(fitted: Fit, inputs: ArrayLike, values: ArrayLike) -> float:
    """Akaike's criterion for small samples, of Gaussian log residuals (Hurvich and Tsai, 1989); smaller is better."""
    residuals = np.log(np.asarray(values, np.float64)) - np.log(fitted.predict(inputs))
    n, p = len(residuals), len(fitted.theta) + 1  # and their variance
    if n <= p + 1:
        return float("inf")
    return float(n * np.log(np.mean(residuals**2) + 1e-300) + 2 * p + 2 * p * (p + 1) / (n - p - 1))


def against_simpler(fitted: Fit, inputs: ArrayLike, values: ArrayLike, delta: float = DELTA) -> dict[str, float]:
    """How much worse the information criterion of each simpler form is, negative where it is better; nothing where the
    rows are too few for one.
    """
    return _against(fitted, _simpler(fitted.form), inputs, values, delta)


def against_others(fitted: Fit, inputs: ArrayLike, values: ArrayLike, delta: float = DELTA) -> dict[str, float]:
    """As `against_simpler`, and then of all other forms of the same inputs."""
    own = FORMS[fitted.form]
    same = [name for name, law in FORMS.items() if (law.inputs, law.relative) == (own.inputs, own.relative)]
    names = [*_simpler(fitted.form), *same]
    return _against(fitted, [name for name in dict.fromkeys(names) if name != fitted.form], inputs, values, delta)


def _simpler(form: str) -> list[str]:
    """The simpler forms, one after the other."""
    name = FORMS[form].simpler
    return [name, *_simpler(name)] if name else []


def _against(fitted: Fit, names: Sequence[str], inputs: ArrayLike, values: ArrayLike, delta: float) -> dict[str, float]:
    found, own, n = {}, aicc(fitted, inputs, values), len(np.asarray(values))
    if not np.isfinite(own):
        return {}
    for name in names:
        if n > len(FORMS[name].starts) + 2:  # or else there is no criterion
            found[name] = aicc(fit(name, inputs, values, delta), inputs, values) - own
    return {name: worse for name, worse in found.items() if np.isfinite(worse)}


def held_out(form: str, inputs: ArrayLike, values: ArrayLike, delta: float = DELTA) -> dict[str, float]:
    """The error of predicting the rows whose input, or product of inputs, is largest from the others, in log units."""
    x, y = np.asarray(inputs, np.float64), np.asarray(values, np.float64)
    size = np.exp(columns(x, FORMS[form]).sum(1))
    edge = np.quantile(size, 1 - HELD_OUT)
    small = size < edge * (1 - 1e-12)
    if small.sum() <= len(FORMS[form].starts) or small.all() or np.ptp(columns(x[small], FORMS[form]), 0).min() == 0:
        return {}
    return {"from_below": float(edge), **log_errors(fit(form, x, y, delta, small), x[~small], y[~small])}


def log_errors(fitted: Fit, inputs: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """How far a law is off at rows that it was not fitted to: log(prediction / value)."""
    errors = np.log(fitted.predict(inputs)) - np.log(values)
    return {
        "rows": len(errors),
        "rms_log_error": float(np.sqrt(np.mean(errors**2))),
        "mean_log_error": float(errors.mean()),
    }


def _ends(fitted: Fit, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the law says at the smallest and at the largest of each input, the others in the middle: two arrays [k]."""
    middle = np.exp(np.log(x).mean(0))
    ends = np.repeat(middle[None, None], 2, 0).repeat(x.shape[1], 1)  # [2, k, k]
    for i in range(x.shape[1]):
        ends[:, i, i] = x[:, i].min(), x[:, i].max()
    low, high = fitted.predict(ends.reshape(-1, x.shape[1])).reshape(2, -1)
    return low, high


def doubts(fitted: Fit, inputs: ArrayLike, left: dict[str, float]) -> list[str]:
    """What the data do not support, in words. left: what `residuals` returned."""
    x = np.exp(columns(inputs, FORMS[fitted.form]))
    n, p = len(x), len(fitted.theta)
    found = []
    if n < 3 * p:
        found.append(f"{n} points for {p} constants: the intervals are too narrow and an exponent is not to be trusted")
    for name, column in zip(FORMS[fitted.form].inputs, x.T, strict=True):
        if column.max() < DECADE * column.min():
            found.append(
                f"{name} spans a factor of {column.max() / column.min():.1f}, less than a decade: do not extrapolate"
            )
        if left[f"shared_{name}"] > 2 / np.sqrt(n):
            found.append(
                f"points next to each other along {name} lie on the same side of the law: it is not of this form"
            )
    if not all(map(np.isfinite, fitted.constants.values())):
        found.append("the fit does not come to an end: the rows are not of this form")
    for name, low, high in zip(FORMS[fitted.form].inputs, *_ends(fitted, x), strict=True):
        if not FORMS[fitted.form].relative and not high < low:
            found.append(f"by the law more {name} is no better")
    if fitted.curvature[0] < FLAT * fitted.curvature[-1]:
        found.append("the data leave a direction open: the constants are not determined one by one, only the curve is")
    return found
