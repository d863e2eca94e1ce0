"""Fits the forms: the summed Huber loss of log residuals, by damped Newton steps in float64 from a grid of starts.

One program fits all starts, all bootstrap resamples and all subsets of rows, many at once: they differ only in their
start and in the weights of the rows. The loss is a sum, not a mean, so that the optimiser's tolerance has the same
meaning for any number of rows (the fault of the published Chinchilla fit, Besiroglu et al., 2404.10102).
"""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from scaling.analysis.frames.numbers import number
from scaling.analysis.laws.form import Form
from scaling.analysis.laws.forms import FORMS
from scaling.core.errors import UserError

LEAST_SQUARES = 10.0  # larger than any residual
DELTA = 1e-3  # log residual at which the loss turns from quadratic to linear (Hoffmann et al., 2203.15556)
STEPS, RESTART_STEPS = 300, 60  # steps from a grid start, and from a fit to nearly the same rows
MANY = 1000  # rows above which the starts are first tried on a sample
_BATCH = 128  # fits at once
_OTHERS, _CLOSE = 7, 0.1  # extra starts per resample, and the distance below which two count as one
_MAX_DAMPING = 1e9  # damping at which a step is too short to change anything
Array = jax.Array
Iterate = tuple[Array, Array, Array, Array]  # theta, loss, damping, index of the step


@dataclasses.dataclass(frozen=True)
class Fit:
    """One fitted law.

    Attributes:
      form: its name.
      theta: the optimiser's vector, in units where the geometric means of inputs and value are 1.
      centre: log of these means, of the inputs [k] and of the value; 0 for a relative form.
      objective: the summed loss.
      gradient: largest component of its gradient there.
      agreeing: share of the starts that reached the same objective; with many rows, of the starts that a sample
        selected.
      curvature: eigenvalues of the mean outer product of the gradients of the log prediction, ascending: a small one is
        a direction that the data do not determine.
      others: other end points with nearly the same objective [k, p]; a resample may have its optimum there.
    """

    form: str
    theta: np.ndarray
    centre: tuple[np.ndarray, float]
    objective: float
    gradient: float
    agreeing: float
    curvature: np.ndarray
    others: np.ndarray

    @property
    def constants(self) -> dict[str, float]:
        """Constants of the formula, by name."""
        with np.errstate(over="ignore"):  # of rows that determine nothing
            return {name: float(x) for name, x in FORMS[self.form].constants(self.theta, *self.centre).items()}

    def predict(self, inputs: ArrayLike, theta: np.ndarray | None = None) -> np.ndarray:
        """Values at inputs [n] or [n, k]; for several theta [m, p] the values for each, [m, n]."""
        x = columns(inputs, FORMS[self.form]) - self.centre[0]
        thetas = np.atleast_2d(self.theta if theta is None else theta)
        with jax.enable_x64(True):
            values = np.asarray(_log_values(self.form, jnp.asarray(thetas), jnp.asarray(x)))
        with np.errstate(over="ignore"):  # of a resample that determines nothing
            values = np.exp(values + self.centre[1])
        return values[0] if theta is None else values


def fit(form: str, inputs: ArrayLike, values: ArrayLike, delta: float = DELTA, kept: np.ndarray | None = None) -> Fit:
    """Fits a form.

    Args:
      form: name of one of FORMS.
      inputs: [n] or [n, k], positive.
      values: [n], positive.
      delta: threshold of the Huber loss; large for least squares.
      kept: bool [n], the rows to fit; all by default.

    Raises:
      UserError: no such form, numbers that are not positive and finite, or fewer rows than constants.
    """
    law = known_form(form)
    x, y = columns(inputs, law), _logs("values", values)
    if len(x) != len(y):
        raise UserError(f"{len(x)} inputs and {len(y)} values")
    kept = np.ones(len(y), bool) if kept is None else kept
    if kept.sum() <= len(law.starts):
        raise UserError(f"{form} has {len(law.starts)} constants and needs more points than {kept.sum()}")
    middle = x[kept].mean(0)
    if same := list(law.same_unit):
        middle[same] = middle[same].mean()
    centre = (x[0] * 0, 0.0) if law.relative else (middle, float(y[kept].mean()))
    starts = np.array(list(itertools.product(*law.starts)))
    if kept.sum() > MANY:
        starts = _promising(form, starts, x[kept] - centre[0], y[kept] - centre[1], delta)
    weights = np.repeat(kept[None].astype(float), len(starts), 0)
    thetas, losses = _minimise(form, starts, x - centre[0], y - centre[1], weights, delta, STEPS)
    best = int(np.nanargmin(losses))
    slope, curvature = _slopes(form, thetas[best], x[kept] - centre[0], y[kept] - centre[1], delta)
    agreeing = float(np.mean(losses <= losses[best] * (1 + 1e-6) + 1e-15))
    near = thetas[losses <= losses[best] * (1 + 2 / np.sqrt(kept.sum()))]  # resampling changes a sum of n by so much
    return Fit(form, thetas[best], centre, float(losses[best]), slope, agreeing, curvature, _apart(thetas[best], near))


def _promising(form: str, starts: np.ndarray, x: np.ndarray, y: np.ndarray, delta: float) -> np.ndarray:
    """End points of the starts on a sample of the rows: the best, and those that are distant from it, at most
    _OTHERS + 1. Fitting all starts to all rows would take long, and the sample selects the starts worth it.
    """
    sample = np.random.default_rng(0).choice(len(y), MANY // 4, replace=False)
    thetas, losses = _minimise(form, starts, x[sample], y[sample], np.ones((len(starts), len(sample))), delta, STEPS)
    best = thetas[int(np.nanargmin(losses))]
    near = thetas[losses <= np.nanmin(losses) * (1 + 2 / np.sqrt(len(sample)))]
    return np.concatenate([best[None], _apart(best, near)])


def _apart(theta: np.ndarray, near: np.ndarray) -> np.ndarray:
    """At most _OTHERS rows of near [n, p], each as far as possible from theta and from the rows chosen before; none
    that is close.
    """
    chosen = theta[None]
    while len(chosen) <= _OTHERS and len(near):
        distance = np.abs(near[:, None] - chosen).max(2).min(1)
        far = np.where(np.isfinite(distance), distance, -1.0).max()
        if far <= _CLOSE:
            break
        chosen = np.concatenate([chosen, near[distance == far][:1]])
    return chosen[1:]


def refits(law: Fit, inputs: ArrayLike, values: ArrayLike, weights: np.ndarray, delta: float = DELTA) -> np.ndarray:
    """theta for many weightings of the rows, started at the fit to all rows and at the other end points with nearly
    its objective, since a fit in a flat valley would not move. weights: [m, n] -> [m, p].
    """
    x, y = columns(inputs, FORMS[law.form]) - law.centre[0], _logs("values", values) - law.centre[1]
    starts = np.concatenate([law.theta[None], law.others])
    steps = STEPS if len(law.others) else RESTART_STEPS
    found = [_minimise(law.form, np.repeat(t[None], len(weights), 0), x, y, weights, delta, steps) for t in starts]
    thetas, losses = (np.stack(z) for z in zip(*found, strict=True))  # [k, m, p], [k, m]
    return thetas[losses.argmin(0), np.arange(len(weights))]


def resamples(groups: ArrayLike, count: int, seed: int = 0) -> np.ndarray:
    """Weights of the rows in each resample of a Bayesian bootstrap (Rubin, 1981), [count, n]. Rows of a group (a run)
    share a weight, whose mean is one.

    No row is ever left out, so every resample determines the constants that all rows determine. And if the noise is far
    above delta, a fit is nearly a median, for which the ordinary bootstrap gives intervals that are too wide: by a
    tenth at five times delta.
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    total = group.max() + 1
    spread = max(total - 2, 1) / total  # for which the variance of a mean is the unbiased one, instead of too small
    drawn = np.random.default_rng(seed).gamma(spread, size=(count, total))
    return (drawn / drawn.mean(1, keepdims=True))[:, group]


def known_form(name: str) -> Form:
    """The form of this name; raises a UserError for an unknown one."""
    if name not in FORMS:
        command = "; isoflop is of the command: python -m scaling.laws --form=isoflop" if name == "isoflop" else ""
        raise UserError(f"form={name}: must be one of {', '.join(FORMS)}{command}")
    return FORMS[name]


def columns(inputs: ArrayLike, law: Form) -> np.ndarray:
    """Logarithms of the inputs, [n] or [n, k] -> [n, k]; raises UserError if they do not fit the form."""
    return _logs("inputs", places(inputs, law))


def places(inputs: Any, law: Form) -> np.ndarray:
    """Inputs (a scalar, [n] or [n, k]; numbers or words like 1B) as numbers [n, k]; raises UserError if they do not
    fit the form.
    """
    try:
        given = np.asarray(inputs)
        x = np.atleast_1d(given.astype(np.float64) if given.dtype.kind in "biuf" else _read(np.asarray(inputs, object)))
    except (ValueError, TypeError) as e:
        raise UserError(f"inputs={inputs!r}: must be numbers, like 1e9 or '1B' (K, M, B, T)") from e
    if x.ndim == 1 and (len(law.inputs) == 1 or not x.size):
        x = x.reshape(-1, len(law.inputs))
    if x.ndim != 2 or x.shape[1] != len(law.inputs):
        raise UserError(f"{law.formula} needs {len(law.inputs)} inputs: {', '.join(law.inputs)}")
    return x


def _read(x: np.ndarray) -> np.ndarray:
    """Objects as numbers, also words like 1B."""
    return np.array([number(cell) if isinstance(cell, str) else float(cell) for cell in x.flat]).reshape(x.shape)


def check_settings(delta: float, count: int, dashes: str = "") -> None:
    """Raises UserError for a delta that is not positive and finite, or for less than one resample.

    Args:
      delta: threshold of the Huber loss.
      count: bootstrap resamples.
      dashes: prefix of names in the message: `--` for a command.
    """
    if not 0 < delta < np.inf:
        raise UserError(f"{dashes}delta={delta}: must be positive and finite; 10 for least squares")
    if count < 1:
        raise UserError(f"{dashes}resamples={count}: must be 1 or more")


def _logs(what: str, x: ArrayLike) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if len(wrong := x[~(np.isfinite(x) & (x > 0))]):
        raise UserError(f"the {what} must be positive and finite; the first that is not: {wrong[:1]}")
    return np.log(x)


def _loss(form: str, theta: Array, x: Array, y: Array, weights: Array, delta: Array | float) -> Array:
    size = jnp.abs(FORMS[form].log_value(theta, x) - y)
    huber = jnp.where(size <= delta, size**2 / 2, delta * (size - delta / 2))
    return (weights * huber).sum()


def _minimise(
    form: str, starts: np.ndarray, x: np.ndarray, y: np.ndarray, weights: np.ndarray, delta: float, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best theta [m, p] and its loss [m] from every start, with its weights."""
    parts = []
    with jax.enable_x64(True):
        size = _BATCH if len(y) <= MANY else min(_BATCH, len(starts))
        for i in range(0, len(starts), size):  # of one shape, for one compilation
            rows = np.minimum(np.arange(i, i + size), len(starts) - 1)
            arrays = (jnp.asarray(z, jnp.float64) for z in (starts[rows], weights[rows], x, y, delta))
            part = _descend(form, *arrays, jnp.asarray(steps))
            parts.append([np.asarray(z)[: len(starts) - i] for z in part])
    thetas, losses = zip(*parts, strict=True)
    return np.concatenate(thetas), np.concatenate(losses)


@functools.partial(jax.jit, static_argnums=0)
def _descend(
    form: str, starts: Array, weights: Array, x: Array, y: Array, delta: Array, steps: Array
) -> tuple[Array, Array]:
    """Newton steps with Levenberg-Marquardt damping, each accepted only if it lowers the loss."""

    def one(theta: Array, w: Array) -> tuple[Array, Array]:
        loss = functools.partial(_loss, form, x=x, y=y, weights=w, delta=delta)

        def majorant(t: Array) -> Array:
            """Curvature of a quadratic that bounds the loss from above and touches it here: always positive."""
            jacobian = jax.jacfwd(FORMS[form].log_value)(t, x)
            size = jnp.abs(FORMS[form].log_value(t, x) - y)
            return (jacobian.T * (w * jnp.minimum(1, delta / jnp.maximum(size, 1e-300)))) @ jacobian

        def step(state: Iterate) -> Iterate:
            theta, value, damping, i = state
            gradient, above = jax.grad(loss)(theta), majorant(theta)
            exact = jax.hessian(loss)(theta)
            scale = jnp.diag(jnp.diag(above) + 1e-12)
            moves = [jnp.linalg.solve(h + damping * scale, gradient) for h in (exact, above)]
            tries = jnp.stack([theta - move for move in moves])
            values = jnp.stack([loss(t) for t in tries])
            values = jnp.where(jnp.isfinite(values), values, jnp.inf)
            best = values.argmin()
            better = values[best] < value
            damping = jnp.clip(jnp.where(better, damping / 5, damping * 4), 1e-9, _MAX_DAMPING)
            return jnp.where(better, tries[best], theta), jnp.where(better, values[best], value), damping, i + 1

        def unfinished(state: Iterate) -> Array:
            return (state[3] < steps) & (state[2] < _MAX_DAMPING)

        damping, zero = jnp.asarray(1e-2, theta.dtype), jnp.zeros((), steps.dtype)
        theta, value, *_ = jax.lax.while_loop(unfinished, step, (theta, loss(theta), damping, zero))
        return theta, value

    return jax.vmap(one)(starts, weights)


def _slopes(form: str, theta: np.ndarray, x: np.ndarray, y: np.ndarray, delta: float) -> tuple[float, np.ndarray]:
    """Largest component of the gradient of the loss, and the eigenvalues of the curvature of the log prediction,
    per row.
    """
    with jax.enable_x64(True):
        slope, curvature = _steepest(form, *(jnp.asarray(z, jnp.float64) for z in (theta, x, y, delta)))
        return float(slope), np.asarray(curvature)


@functools.partial(jax.jit, static_argnums=0)
def _steepest(form: str, theta: Array, x: Array, y: Array, delta: Array) -> tuple[Array, Array]:
    slope = jax.grad(lambda t: _loss(form, t, x, y, jnp.ones(len(y)), delta))(theta)
    jacobian = jax.jacfwd(FORMS[form].log_value)(theta, x)
    return jnp.abs(slope).max(), jnp.linalg.eigvalsh(jacobian.T @ jacobian / len(y))


@functools.partial(jax.jit, static_argnums=0)
def _log_values(form: str, thetas: Array, x: Array) -> Array:
    return jax.vmap(lambda t: FORMS[form].log_value(t, x))(thetas)
