"""Checked rows of features with labels, the input of every probe."""

import numpy as np
from jax.typing import ArrayLike

from scaling.core.errors import UserError

Split = tuple[ArrayLike, ArrayLike]  # features [n, d]; labels [n], or [n, L] of 0 and 1 if a row can have several


def checked_features(features: ArrayLike, what: str) -> np.ndarray:
    """Features as float32 [n, d]; raises UserError for another shape, NaN or infinity."""
    array = np.asarray(features, np.float32)
    if array.ndim != 2:
        raise UserError(f"{what} features must be [rows, width], not of shape {array.shape}")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise UserError(f"{what} features must be finite; row {bad} holds NaN or infinity")
    return array


def checked_labels(labels: ArrayLike, rows: int, what: str) -> np.ndarray:
    """Labels, integers [n] or 0 and 1 [n, L]; raises UserError for other values or another number of rows."""
    array = np.asarray(labels)
    if not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{what} labels must be whole numbers, not {array.dtype}")
    if array.shape[:1] != (rows,) or array.ndim > 2:
        raise UserError(f"{what} labels of shape {array.shape} do not match {rows} rows of {what} features")
    if array.ndim == 2 and not np.isin(array, (0, 1)).all():
        raise UserError(f"{what} labels of shape {array.shape} must hold 1 for each label of a row, and 0 elsewhere")
    return array


def checked(split: Split, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of one split, see `checked_features` and `checked_labels`."""
    features = checked_features(split[0], what)
    return features, checked_labels(split[1], len(features), what)


def check_widths(train: np.ndarray, other: np.ndarray, what: str) -> None:
    """Raises UserError if two splits differ in the width of their features."""
    if train.shape[1] != other.shape[1]:
        raise UserError(f"features differ in width: training {train.shape[1]}, {what} {other.shape[1]}")


def check_kinds(train: np.ndarray, other: np.ndarray, what: str) -> None:
    """Raises UserError if two splits differ in the kind of their labels: one or several per row, or the number of
    labels.
    """
    if train.shape[1:] != other.shape[1:]:
        raise UserError(f"labels differ in kind: training {list(train.shape)}, {what} {list(other.shape)}")
