"""Exact k-nearest-neighbour classification, a measure of how well features separate classes without any training.

Distances are computed on the device in blocks of test rows, so the whole test x training matrix is never held. Results
are those of scikit-learn's `KNeighborsClassifier(k, weights="uniform")`: majority vote, the lowest class on ties. Rows
with several labels are scored label by label, by the share of the neighbours that have it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from scaling.core.errors import UserError
from scaling.evaluation.inputs import Split, check_kinds, check_widths, checked, checked_features, checked_labels
from scaling.evaluation.scores import Predictions

METRICS = ("cosine", "euclidean")
_BLOCK_ELEMENTS = 1 << 25  # distances, or votes, held at once: 128 MiB
_MAX_BLOCK_ROWS = 1024
_LONGEST, _SHORTEST = 1e19, 1e-17  # of vectors whose squared length, and its digits, are normal numbers of float32


def knn_predict(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    *,
    k: int = 5,
    metric: str = "cosine",
) -> np.ndarray:
    """Predicts the class of each test row by a vote among its k nearest training rows.

    Args:
      train_features: [n, d], any real dtype; compared in float32.
      train_labels: [n] whole numbers, which need not be contiguous; or [n, L], 1 for each label a row has, else 0.
      test_features: [m, d].
      k: number of voters. Among identical training rows the earlier ones vote.
      metric: `cosine` (a row of zeros is at distance 1 from all) or `euclidean`.

    Returns:
      The label of the majority [m], of the dtype of `train_labels`; or the share of the neighbours that have each
      label, float32 [m, L].

    Raises:
      UserError: unknown metric, k out of range, shapes that do not match, labels that are not whole numbers, or
        features that are not finite, or whose squares are not.
    """
    train, test = checked_features(train_features, "training"), checked_features(test_features, "test")
    labels = checked_labels(train_labels, len(train), "training")
    if metric not in METRICS:
        raise UserError(f"metric={metric!r}: must be one of {', '.join(METRICS)}")
    if not 1 <= k <= len(train):
        raise UserError(f"k={k}: must be from 1 to the number of training rows, {len(train)}")
    check_widths(train, test, "test")
    _check_squares(train, test, metric)
    classes = np.unique(labels) if labels.ndim == 1 else None
    votes = labels if classes is None else labels[:, None] == classes
    counts = _counts(train, votes.astype(np.uint8), test, k, metric)
    return (counts / k).astype(np.float32) if classes is None else classes[counts.argmax(1)]


def _counts(train: np.ndarray, votes: np.ndarray, test: np.ndarray, k: int, metric: str) -> np.ndarray:
    """Votes [n, L] that each test row gets from its nearest training rows: [m, L]."""
    prepare = _unit_rows if metric == "cosine" else functools.partial(_centred, mean=train.mean(0, dtype=np.float64))
    points, ballots = jnp.asarray(prepare(train)), jnp.asarray(votes)
    penalty = 0.5 * jnp.sum(points * points, axis=1) if metric == "euclidean" else jnp.zeros(len(train))
    rows = max(1, min(_MAX_BLOCK_ROWS, _BLOCK_ELEMENTS // max(len(train), k * votes.shape[1]), len(test)))
    counts = [
        np.asarray(_vote(points, penalty, ballots, _padded(prepare(test[start : start + rows]), rows), k))
        for start in range(0, max(len(test), 1), rows)
    ]
    return np.concatenate(counts)[: len(test)]


def knn_probe(
    train: Split, test: Split, validation: Split | None = None, *, k: int = 5, metric: str = "cosine"
) -> Predictions:
    """`knn_predict` as a probe, see `scaling.evaluation.probes`. It has nothing to choose and ignores `validation`.

    Raises:
      UserError: see `knn_predict`; or test labels that are empty or do not match.
    """
    del validation
    train, test = checked(train, "training"), checked(test, "test")
    check_kinds(train[1], test[1], "test")
    return Predictions(knn_predict(*train, test[0], k=k, metric=metric), test[1])


def _check_squares(train: np.ndarray, test: np.ndarray, metric: str) -> None:
    """Raises UserError where float32 cannot hold squared lengths: of a row as it is for the cosine, and from the mean
    for distances, for which only all rows together may be too small. A compiled program replaces numbers below the
    smallest normal one by zero.
    """
    mean = train.mean(0, dtype=np.float64) if metric == "euclidean" else None
    most = _LONGEST / np.sqrt(max(1, train.shape[1]))
    for features, what in ((train, "training"), (test, "test")):
        x = features if mean is None else features - mean
        sizes = np.maximum(x.max(1, initial=0.0), -x.min(1, initial=0.0))
        least = sizes if mean is None else np.full(len(sizes), sizes.max(initial=0.0))
        for wrong, why in ((sizes > most, "large"), ((least < _SHORTEST) & (sizes > 0), "small")):
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise UserError(
                    f"{what} features are too {why}: row {row} has values up to {sizes[row]:.3g}, whose squares "
                    "float32 cannot hold; rescale all features by one factor"
                )


@functools.partial(jax.jit, static_argnames="k")
def _vote(points: jax.Array, penalty: jax.Array, ballots: jax.Array, queries: jax.Array, k: int) -> jax.Array:
    """Votes [b, L] for each query x [b, d]. Nearest is the largest x.p (cosine) or x.p - |p|^2 / 2 (euclidean)."""
    closeness = jnp.matmul(queries, points.T, precision=jax.lax.Precision.HIGHEST) - penalty
    _, nearest = jax.lax.top_k(closeness, k)
    return ballots[nearest].sum(axis=1, dtype=jnp.int32)  # [b, k, L] -> [b, L]


def _unit_rows(x: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms == 0, 1, norms)


def _centred(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    # Distances ignore a common offset, float32 products of large offsets do not.
    return (x - mean).astype(np.float32)


def _padded(block: np.ndarray, rows: int) -> np.ndarray:
    # The last block gets the shape of the others: one compilation.
    return np.pad(block, ((0, rows - len(block)), (0, 0)))
