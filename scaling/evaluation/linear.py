"""Linear probe: logistic regression on standardised features, its regularisation chosen on a validation split.

The objective is that of scikit-learn's `LogisticRegression`: C times the sum of the losses plus half the squared norm
of the weights, intercepts free. One label per row: multinomial (of two classes too, where it equals the binary model at
2 C). Several labels per row: one binary model for each.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from scaling.core.errors import UserError
from scaling.evaluation.inputs import Split, check_kinds, check_widths, checked
from scaling.evaluation.scores import Predictions

STRENGTHS = tuple(10.0 ** (e / 2) for e in range(-12, 3))  # C, from strong to weak regularisation
_HELD_OUT = 0.2  # share of the training rows held out to choose C without a validation split
_TOLERANCE = 1e-6  # largest component of the gradient of the mean loss in the units of `_objective`
_MAX_STEPS = 1000
_BLOCK_ELEMENTS = 1 << 22  # of features held in float64 at once: 32 MiB

Rows = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Logistic:
    """A fitted model.

    Attributes:
      weights, intercept: [d, L] and [L], for standardised features.
      mean, scale: [d], mean and scale of the rows it was fitted on.
      classes: class of each of the L columns; None for rows with several labels.
      strength: C.
    """

    weights: np.ndarray
    intercept: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    classes: np.ndarray | None
    strength: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Unnormalised log-probabilities of the classes, or log-odds of the labels. [m, d] -> [m, L]."""
        rows = max(1, _BLOCK_ELEMENTS // features.shape[1] if _is_wide(features) else len(features))
        parts = [features[i : i + rows] for i in range(0, max(1, len(features)), rows)]
        return np.concatenate([(part - self.mean) / self.scale @ self.weights + self.intercept for part in parts])

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The likeliest class [m], or for rows with several labels the log-odds [m, L]."""
        logits = self.logits(features)
        return logits if self.classes is None else self.classes[logits.argmax(1)]


def linear_probe(
    train: Split,
    test: Split,
    validation: Split | None = None,
    *,
    strengths: Sequence[float] = STRENGTHS,
    metric: str = "",
    seed: int = 0,
) -> Predictions:
    """Fits the regularisation path on the training rows, selects the C that is best on the validation rows (among
    equals the strongest regularisation), and refits with it on both.

    Args:
      train, test: features and labels.
      validation: rows on which C is chosen; None holds out a fifth of the training rows, drawn by `seed`.
      strengths: values of C to try.
      metric: metric by which C is chosen; the macro average by default.
      seed: seed of that draw; the fit itself is deterministic.

    Returns:
      The predictions for the test rows; `details` has the `C` chosen and the `validation` score.

    Raises:
      UserError: rows that do not fit together, no positive strength, too few rows, or a metric that does not apply.
    """
    train, test = checked(train, "training"), checked(test, "test")
    fitted, held_out = _hold_out(train, seed) if validation is None else (train, checked(validation, "validation"))
    for split, what in ((held_out, "validation"), (test, "test")):
        check_widths(train[0], split[0], what)
        check_kinds(train[1], split[1], what)
    if not strengths or min(strengths) <= 0:
        raise UserError(f"the linear probe needs values of C above 0, not {list(strengths)}")
    best, score = _best(regularisation_path(*fitted, sorted(strengths)), held_out, metric)
    features, labels = train
    if validation is not None:
        features, labels = (np.concatenate(parts) for parts in zip(train, held_out, strict=True))
    (final,) = regularisation_path(features, labels, [best.strength], start=best)
    return Predictions(final.predict(test[0]), test[1], {"C": best.strength, "validation": score})


def regularisation_path(
    features: np.ndarray, labels: np.ndarray, strengths: Sequence[float], start: Logistic | None = None
) -> list[Logistic]:
    """Fits one model for each C, each starting from the previous solution.

    Args:
      features: [n, d].
      labels: integers [n], or 0 and 1 [n, L].
      strengths: values of C, in the order in which they are fitted.
      start: a model of the same features and labels to start from; by default zeros.
    """
    mean, scale = features.mean(0, dtype=np.float64), _deviations(features)
    scale[scale == 0] = 1
    classes = np.unique(labels) if labels.ndim == 1 else None
    targets = (labels if classes is None else labels[:, None] == classes).astype(np.float64)
    axes = _axes(features, mean, scale)
    share = np.clip(targets.mean(0), 1 / len(features), 1 - 1 / len(features))
    curvature = share * (1 - share)  # [L], of the loss of a model that only knows the shares
    weights, intercept = np.zeros((len(axes.singular), len(share))), np.zeros(len(share))
    if start is not None and start.intercept.shape == intercept.shape:
        weights, intercept = axes.down(start.weights), start.intercept
    models = []
    with jax.enable_x64(True), jax.default_device(_float64_device()):
        x, y = jnp.asarray(axes.left * axes.singular), jnp.asarray(targets)
        for strength in strengths:
            decay = 1 / (strength * len(features))
            units = np.vstack([curvature * axes.singular[:, None] ** 2 / len(features) + decay, curvature]) ** -0.5
            weights, intercept = _solve(weights, intercept, units, x, y, decay, several=classes is None)
            models.append(Logistic(axes.up(weights), intercept, mean, scale, classes, strength))
    return models


@dataclasses.dataclass(frozen=True)
class _Axes:
    """Singular vectors of standardised features, x = left * singular @ right.

    Attributes:
      left, singular: [n, r] and [r].
      down, up: right @ weights, [d, L] -> [r, L], and right.T @ weights, back.
    """

    left: np.ndarray
    singular: np.ndarray
    down: Callable[[np.ndarray], np.ndarray]
    up: Callable[[np.ndarray], np.ndarray]


def _axes(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> _Axes:
    """The SVD of standardised features; if they have more columns than rows (raw pixels), from the eigenvectors of
    x @ x.T, so that x is never held as a whole.

    The latter loses directions with singular values below about 1e-7 of the largest. At the largest C they move the
    logits by less than the tolerance of the solver.
    """
    if not _is_wide(features):
        left, singular, right = np.linalg.svd((features - mean) / scale, full_matrices=False)
        return _Axes(left, singular, lambda weights: right @ weights, lambda weights: right.T @ weights)
    gram = np.zeros((len(features), len(features)))
    for _, x in _standardised(features, mean, scale):
        gram += x @ x.T
    values, vectors = np.linalg.eigh(gram)
    known = values > values[-1] * len(features) * np.finfo(np.float64).eps
    left, singular = vectors[:, known], np.sqrt(values[known])

    def down(weights: np.ndarray) -> np.ndarray:
        seen = sum(x @ weights[columns] for columns, x in _standardised(features, mean, scale))
        return (left / singular).T @ seen

    def up(weights: np.ndarray) -> np.ndarray:
        dual = left / singular @ weights
        return np.concatenate([x.T @ dual for _, x in _standardised(features, mean, scale)])

    return _Axes(left, singular, down, up)


def _is_wide(features: np.ndarray) -> bool:
    return features.shape[1] > len(features)


def _blocks(features: np.ndarray) -> Iterator[slice]:
    size = max(1, _BLOCK_ELEMENTS // len(features))
    yield from (slice(start, start + size) for start in range(0, features.shape[1], size))


def _standardised(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of columns, with their standardised features in float64."""
    for columns in _blocks(features):
        x = features[:, columns] - mean[columns]
        x /= scale[columns]
        yield columns, x


def _deviations(features: np.ndarray) -> np.ndarray:
    """Standard deviation of every column, float64 [d]."""
    if not _is_wide(features):
        return features.std(0, dtype=np.float64)
    return np.concatenate([features[:, columns].std(0, dtype=np.float64) for columns in _blocks(features)])


def _solve(
    weights: np.ndarray,
    intercept: np.ndarray,
    units: np.ndarray,
    x: jax.Array,
    y: jax.Array,
    decay: float,
    several: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The minimum of `_objective` from a start, by L-BFGS: weights [r, L] and intercept [L]."""
    fixed = jnp.asarray(units), x, y, decay
    solution = optimize.minimize(
        lambda z: tuple(map(np.asarray, _objective(z, *fixed, several=several))),
        (np.vstack([weights, intercept]) / units).ravel(),
        method="L-BFGS-B",
        jac=True,
        options={"maxiter": _MAX_STEPS, "gtol": _TOLERANCE, "ftol": 0.0},
    )
    scaled = solution.x.reshape(units.shape) * units
    return scaled[:-1], scaled[-1]


@functools.partial(jax.jit, static_argnames="several")
@jax.value_and_grad
def _objective(
    z: jax.Array, units: jax.Array, x: jax.Array, y: jax.Array, decay: jax.Array, several: bool
) -> jax.Array:
    """Mean negative log-likelihood plus decay / 2 |weights|^2. z: [(r + 1) * L], x: [n, r], y: [n, L].

    `units` [r + 1, L] scale the variables so that the Hessian is near the identity at every C. In the coordinates of
    the singular vectors this scaling is diagonal, the norm is unchanged, and there are no more columns than rows.
    """
    scaled = z.reshape(units.shape) * units
    weights, intercept = scaled[:-1], scaled[-1]
    logits = x @ weights + intercept
    normaliser = jax.nn.softplus(logits).sum(1) if several else jax.nn.logsumexp(logits, axis=1)
    return jnp.mean(normaliser - jnp.sum(y * logits, axis=1)) + 0.5 * decay * jnp.sum(weights**2)


def _best(path: list[Logistic], validation: Rows, metric: str) -> tuple[Logistic, float]:
    """The first of the best models and its score."""
    best, highest = None, -1.0
    for model in path:
        scores = Predictions(model.predict(validation[0]), validation[1]).scores()
        chosen = metric or next(name for name in scores if name.startswith("macro"))
        if chosen not in scores:
            raise UserError(f"C cannot be chosen by {metric!r}; for these labels choose {', '.join(scores)}")
        if scores[chosen] > highest:
            best, highest = model, scores[chosen]
    assert best is not None
    return best, highest


def _hold_out(train: Rows, seed: int) -> tuple[Rows, Rows]:
    """Training rows without a fifth, and the fifth."""
    features, labels = train
    count = round(_HELD_OUT * len(features))
    if not count:
        raise UserError(f"{len(features)} training rows are too few to hold some out; give a validation split")
    order = np.random.default_rng(seed).permutation(len(features))
    rest, held_out = np.sort(order[count:]), np.sort(order[:count])
    return (features[rest], labels[rest]), (features[held_out], labels[held_out])


def _float64_device() -> jax.Device:
    # TPUs emulate float64; the solver needs it, and its matrices are small.
    return jax.local_devices(backend="cpu")[0] if jax.default_backend() == "tpu" else jax.local_devices()[0]
