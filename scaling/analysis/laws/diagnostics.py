"""Diagnostics of a fit: its residuals, its predictions of held-out rows, comparison with other forms, and gaps in
the data.
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike

from scaling.analysis.laws.fitting import DELTA, Fit, columns, fit
from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.intervals import interval

FLAT = 1e-6  # ratio of smallest to largest curvature below which a direction is undetermined
DECADE = 10.0
HELD_OUT = 0.25  # share of the rows (the largest) that is predicted from the smaller ones
STEEP = 5.0  # exponents of laws of losses or errors are smaller in all known cases
ORDERS = 20  # powers of ten spanned by the interval of a coefficient; the exponent is then uncertain by about one
FEW_GROUPS = 5  # with fewer, all resamples are mixtures of the same few


def residuals(fitted: Fit, inputs: ArrayLike, values: ArrayLike) -> dict[str, float]:
    """Statistics of the residuals log(value / prediction): `rms`, `largest`, and for every input `shared_NAME`, their
    lag-one autocorrelation along it, which is near 0 if the form is right.
    """
    left = np.log(np.asarray(values, np.float64)) - np.log(fitted.predict(inputs))
    size = float(np.sum(left**2))
    found = {"rms": float(np.sqrt(np.mean(left**2))), "largest": float(left[np.abs(left).argmax()])}
    # Rows that share an input are shuffled, so that misfit along another input does not appear here.
    mixed = np.random.default_rng(0).permutation(len(left))
    law = FORMS[fitted.form]
    for name, column in zip(law.inputs, columns(inputs, law).T, strict=True):
        ordered = left[np.lexsort((mixed, column))]
        found[f"shared_{name}"] = float(ordered[1:] @ ordered[:-1]) / size if size > 1e-18 * len(left) else 0.0
    return found


def aicc(fitted: Fit, inputs: ArrayLike, values: ArrayLike) -> float:
    """Akaike's criterion for small samples, of Gaussian log residuals (Hurvich and Tsai, 1989); smaller is better."""
    residuals = np.log(np.asarray(values, np.float64)) - np.log(fitted.predict(inputs))
    n, p = len(residuals), len(fitted.theta) + 1  # and the variance of the residuals
    if n <= p + 1:
        return float("inf")
    return float(n * np.log(np.mean(residuals**2) + 1e-300) + 2 * p + 2 * p * (p + 1) / (n - p - 1))


def against_simpler(fitted: Fit, inputs: ArrayLike, values: ArrayLike, delta: float = DELTA) -> dict[str, float]:
    """Increase of the information criterion for each simpler form, negative if that form is better; forms with too
    few rows are omitted.
    """
    return _against(fitted, _simpler(fitted.form), inputs, values, delta)


def against_others(fitted: Fit, inputs: ArrayLike, values: ArrayLike, delta: float = DELTA) -> dict[str, float]:
    """Like `against_simpler`, followed by all other forms with the same inputs."""
    own = FORMS[fitted.form]
    alike = {name: law for name, law in FORMS.items() if (law.inputs, law.relative) == (own.inputs, own.relative)}
    same = [name for name, law in alike.items() if not law.asked_only]
    names = [*_simpler(fitted.form), *same]
    return _against(fitted, [name for name in dict.fromkeys(names) if name != fitted.form], inputs, values, delta)


def _simpler(form: str) -> list[str]:
    """The simpler forms, in order of decreasing complexity."""
    name = FORMS[form].simpler
    return [name, *_simpler(name)] if name else []


def _against(fitted: Fit, names: Sequence[str], inputs: ArrayLike, values: ArrayLike, delta: float) -> dict[str, float]:
    found, own, n = {}, aicc(fitted, inputs, values), len(np.asarray(values))
    if not np.isfinite(own):
        return {}
    for name in names:
        if n > len(FORMS[name].starts) + 2:  # else the criterion is undefined
            found[name] = aicc(fit(name, inputs, values, delta), inputs, values) - own
    return {name: worse for name, worse in found.items() if np.isfinite(worse)}


def extrapolation_error(form: str, inputs: ArrayLike, values: ArrayLike, delta: float = DELTA) -> dict[str, float]:
    """The error of predicting the rows with the largest input (or product of inputs) from the others, in log units."""
    x, y = np.asarray(inputs, np.float64), np.asarray(values, np.float64)
    size = np.exp(columns(x, FORMS[form]).sum(1))
    edge = np.quantile(size, 1 - HELD_OUT)
    small = size < edge * (1 - 1e-12)
    if small.sum() <= len(FORMS[form].starts) or small.all() or np.ptp(columns(x[small], FORMS[form]), 0).min() == 0:
        return {}
    return {"from_below": float(edge), **log_errors(fit(form, x, y, delta, small), x[~small], y[~small])}


def log_errors(fitted: Fit, inputs: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Errors of a law on rows that it was not fitted to: log(prediction / value)."""
    errors = np.log(fitted.predict(inputs)) - np.log(values)
    return {
        "rows": len(errors),
        "rms_log_error": float(np.sqrt(np.mean(errors**2))),
        "mean_log_error": float(errors.mean()),
    }


def _ends(fitted: Fit, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of the law at the smallest and at the largest of each input, with the others at their middle: two
    arrays [k].
    """
    middle = np.exp(np.log(x).mean(0))
    ends = np.repeat(middle[None, None], 2, 0).repeat(x.shape[1], 1)  # [2, k, k]
    for i in range(x.shape[1]):
        ends[:, i, i] = x[:, i].min(), x[:, i].max()
    low, high = fitted.predict(ends.reshape(-1, x.shape[1])).reshape(2, -1)
    return low, high


def doubts(fitted: Fit, inputs: ArrayLike, values: ArrayLike, left: dict[str, float]) -> list[str]:
    """Warnings about conclusions that the data do not support. left: result of `residuals`."""
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
        if not FORMS[fitted.form].relative and name not in FORMS[fitted.form].turning and not high < low:
            found.append(f"the fitted law does not decrease with {name}")
    if fitted.curvature[0] < FLAT * fitted.curvature[-1]:
        found.append("the data leave a direction open: the constants are not determined one by one, only the curve is")
    if _no_trend(fitted, x, values):
        found.append("a constant describes the rows as well as this law: they show no trend")
    return found


def _no_trend(fitted: Fit, x: np.ndarray, values: ArrayLike) -> bool:
    """Whether a constant predicts as well as the law: by the residuals and, if there are enough rows, also by
    Akaike's criterion under Gaussian and Laplace residuals, so that a single failed run does not decide.
    """
    y = np.log(np.asarray(values, np.float64))
    n, p, left = len(y), len(fitted.theta) + 1, y - np.log(fitted.predict(x))
    squares = (np.mean((y - y.mean()) ** 2), np.mean(left**2))
    sizes = (np.mean(np.abs(y - np.median(y))) ** 2, np.mean(np.abs(left)) ** 2)
    spread = [squares, sizes]
    if FORMS[fitted.form].relative or n <= p + 1:
        return all(own >= constant for constant, own in spread)

    def criterion(size: float, constants: int) -> float:
        return float(n * np.log(size + 1e-300) + 2 * constants * n / (n - constants - 1))

    return all(criterion(constant, 2) <= criterion(own, p) for constant, own in spread)


def not_believed(fitted: Fit, thetas: np.ndarray, known: Collection[str] = ()) -> list[str]:
    """Warnings about implausible constants: undetermined coefficients, exponents unlike those of any known law, or
    exponents of undetermined sign.

    Args:
      fitted: the fit to all rows.
      thetas: parameter vectors of resamples [m, p].
      known: constants already known to be undetermined.
    """
    form, found = FORMS[fitted.form], []
    with np.errstate(all="ignore"):  # degenerate resamples
        drawn = form.constants(thetas, *fitted.centre)
        ends = {name: interval(np.asarray(drawn[name])) for name in (*form.coefficients, *form.exponents)}
        orders = {name: float(np.log10(high) - np.log10(low)) for name, (low, high) in ends.items()}
    wide = [name for name in form.coefficients if name not in known and not orders[name] <= ORDERS]
    if wide:
        found.append(
            f"{' and '.join(wide)} may be anything: the 95 % interval spans more than {ORDERS} orders of magnitude"
        )
    for name in form.exponents:
        if name in known:
            continue
        if not abs(fitted.constants[name]) <= STEEP:
            found.append(f"{name} = {fitted.constants[name]:.3g}: no law is known to be so steep; it is not to be used")
        low, high = ends[name]
        if not (low > 0 or high < 0):
            found.append(
                f"the 95 % interval of {name} holds 0: the rows do not tell whether the law falls or rises along it"
            )
    return found
