"""Exact k-nearest-neighbour classification: how well do features separate the classes without any training?

Distances are computed on the device in blocks of test rows, so the whole test x training matrix is never held. Results
are those of scikit-learn's `KNeighborsClassifier(k, weights="uniform")`: majority vote, the lowest class on ties.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from scaling.errors import UserError

METRICS = ("cosine", "euclidean")
_BLOCK_ELEMENTS = 1 << 25  # distances, or votes, held at once: 128 MiB
_MAX_BLOCK_ROWS = 1024


def knn_predict(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    *,
    k: int = 5,
    metric: str = "cosine",
) -> np.ndarray:
    """Predicts the class of each test row by a majority vote among its k nearest training rows.

    Args:
      train_features: [n, d], any real dtype; compared in float32.
      train_labels: [n] whole numbers; they need not be contiguous.
      test_features: [m, d].
      k: voters. Of identical training rows the earlier ones vote.
      metric: `cosine` (a row of zeros is at distance 1 from all) or `euclidean`.

    Returns:
      Predicted labels [m], of the dtype of `train_labels`.

    Raises:
      UserError: unknown metric, k out of range, shapes that do not match, labels that are not whole numbers, or
        features that are not finite.
    """
    train, test = _features(train_features, "training"), _features(test_features, "test")
    labels = _labels(train_labels, len(train), "training")
    if metric not in METRICS:
        raise UserError(f"unknown k-NN metric {metric!r}; choose one of: {', '.join(METRICS)}")
    if not 1 <= k <= len(train):
        raise UserError(f"k-NN with k={k} needs k between 1 and the number of training rows, {len(train)}")
    if train.shape[1] != test.shape[1]:
        raise UserError(f"k-NN features differ in width: training {train.shape[1]}, test {test.shape[1]}")
    classes, class_index = np.unique(labels, return_inverse=True)
    prepare = _unit_rows if metric == "cosine" else functools.partial(_centred, mean=train.mean(0, dtype=np.float64))
    points, votes = jnp.asarray(prepare(train)), jnp.asarray(class_index, jnp.int32)
    penalty = 0.5 * jnp.sum(points * points, axis=1) if metric == "euclidean" else jnp.zeros(len(train))
    rows = max(1, min(_MAX_BLOCK_ROWS, _BLOCK_ELEMENTS // max(len(train), k * len(classes)), len(test)))
    predicted = [
        np.asarray(_vote(points, penalty, votes, _padded(prepare(test[start : start + rows]), rows), k, len(classes)))
        for start in range(0, len(test), rows)
    ]
    return classes[np.concatenate(predicted)[: len(test)]] if predicted else classes[:0]


def knn_accuracy(
    train_features: ArrayLike,
    train_labels: ArrayLike,
    test_features: ArrayLike,
    test_labels: ArrayLike,
    *,
    k: int = 5,
    metric: str = "cosine",
) -> dict[str, float]:
    """Accuracies of `knn_predict` in [0, 1].

    Returns:
      `accuracy`, the share of test rows predicted right, and `macro_accuracy`, the mean over the classes present in
      `test_labels` of the share of their rows predicted right.

    Raises:
      UserError: as `knn_predict`, or `test_labels` that are empty or do not match the test features.
    """
    labels = _labels(test_labels, len(np.asarray(test_features)), "test")
    if not len(labels):
        raise UserError("k-NN accuracy needs at least one test row")
    right = knn_predict(train_features, train_labels, test_features, k=k, metric=metric) == labels
    recalls = [right[labels == label].mean() for label in np.unique(labels)]
    return {"accuracy": float(right.mean()), "macro_accuracy": float(np.mean(recalls))}


@functools.partial(jax.jit, static_argnames=("k", "classes"))
def _vote(
    points: jax.Array, penalty: jax.Array, votes: jax.Array, queries: jax.Array, k: int, classes: int
) -> jax.Array:
    """Class index [b] of each query x [b, d]. Nearest is the largest x.p (cosine) or x.p - |p|^2 / 2 (euclidean)."""
    closeness = jnp.matmul(queries, points.T, precision=jax.lax.Precision.HIGHEST) - penalty
    _, nearest = jax.lax.top_k(closeness, k)
    counts = jax.nn.one_hot(votes[nearest], classes, dtype=jnp.int32).sum(axis=1)
    return jnp.argmax(counts, axis=1)


def _unit_rows(x: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms == 0, 1, norms)


def _centred(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    # Distances ignore a common offset, float32 products of large offsets do not.
    return (x - mean).astype(np.float32)


def _padded(block: np.ndarray, rows: int) -> np.ndarray:
    # The last block gets the shape of the others: one compilation.
    return np.pad(block, ((0, rows - len(block)), (0, 0)))


def _features(features: ArrayLike, what: str) -> np.ndarray:
    array = np.asarray(features, np.float32)
    if array.ndim != 2:
        raise UserError(f"k-NN {what} features must be [rows, width], not of shape {array.shape}")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise UserError(f"k-NN {what} features must be finite; row {bad} holds NaN or infinity")
    return array


def _labels(labels: ArrayLike, rows: int, what: str) -> np.ndarray:
    array = np.asarray(labels)
    if not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"k-NN {what} labels must be whole numbers, not {array.dtype}")
    if array.shape != (rows,):
        raise UserError(f"k-NN {what} labels of shape {array.shape} do not match {rows} rows of {what} features")
    return array
