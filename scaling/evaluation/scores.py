"""Scores of a probe, their intervals, and the share of the full model's score that a smaller one retains.

A score is a function of (predicted, truth, weights); row r of `weights` gives the number of times that each test row
counts. A row of ones gives the score itself, the counts of draws with replacement its bootstrap (Efron 1979).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from scaling.core.errors import TrainingError, UserError

Interval = tuple[float | None, float | None]  # None if undefined

_BLOCK_ELEMENTS = 1 << 23  # weights held at once: 32 MiB


def accuracy(predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the rows predicted right. [m], [m], [R, m] -> [R]."""
    return np.divide(weights @ (predicted == truth).astype(np.float32), weights.sum(1), dtype=np.float64)


def macro_accuracy(predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the classes present of the share of their rows predicted right. [m], [m], [R, m] -> [R]."""
    member = truth[:, None] == np.unique(truth)  # [m, C]
    right = member & (predicted == truth)[:, None]
    return _mean_of_defined(weights @ right.astype(np.float32), weights @ member.astype(np.float32))


def macro_map(predicted: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean average precision over the labels that have a positive row. [m, L] scores, [m, L] 0/1, [R, m] -> [R].

    Average precision is the area under the step curve of precision over recall; rows of equal score share a step, as in
    scikit-learn's `average_precision_score`.
    """
    columns = [_precision_sum(*label, weights) for label in zip(predicted.T, truth.T, strict=True)]
    precision, positives = (np.stack(part, axis=1) for part in zip(*columns, strict=True))
    return _mean_of_defined(precision, positives)


def _precision_sum(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum over the positive rows of the precision at their score, and the number of positive rows. Each [R]."""
    order = np.argsort(-scores, kind="stable")
    ranked = -scores[order]
    positive = np.flatnonzero(truth[order])  # ranks
    step = np.searchsorted(ranked, ranked[positive], side="right") - 1  # the last rank of the same score
    weights = weights[:, order]
    found = np.cumsum(weights[:, positive], axis=1)
    counted = np.cumsum(weights, axis=1)[:, step]
    at_step = found[:, np.searchsorted(positive, step, side="right") - 1]
    # A drawn row is counted in its own step; one that was not drawn has weight 0.
    precision = np.divide(at_step, np.maximum(counted, 1), dtype=np.float64)
    return (weights[:, positive] * precision).sum(1), weights[:, positive].sum(1)


def _mean_of_defined(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Mean over the columns of total / count for non-zero counts; NaN if all are zero. [R, C] -> [R]."""
    defined = count > 0
    columns = defined.sum(1)
    mean = np.divide(total, np.where(defined, count, 1), dtype=np.float64).sum(1) / np.maximum(columns, 1)
    return np.where(columns > 0, mean, np.nan)


SINGLE_LABEL = {"accuracy": accuracy, "macro_accuracy": macro_accuracy}
MULTI_LABEL = {"macro_map": macro_map}


@dataclasses.dataclass(frozen=True, repr=False)
class Predictions:
    """A probe's predictions for the test rows, with the truth.

    Attributes:
      predicted: labels [m], or scores [m, L] of multi-label rows, larger for more likely.
      truth: labels [m], or 0 and 1 [m, L].
      details: choices that the probe made, for the record.

    Raises:
      UserError: no test row, different numbers of rows, or no positive row of any label.
    """

    predicted: np.ndarray
    truth: np.ndarray
    details: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        """Short, for notebooks."""
        said = ", ".join(f"{name} {score:.1%}" for name, score in self.scores().items())
        return f"Predictions({len(self.truth):,} images: {said})"

    def __post_init__(self):
        if not len(self.truth) or self.predicted.shape != self.truth.shape:
            raise UserError(
                f"a score needs a label for each of at least one test row; there are {list(self.truth.shape)} labels "
                f"for {list(self.predicted.shape)} predictions"
            )
        if self.truth.ndim == 2 and not self.truth.any():
            raise UserError("no test row has any of the labels; mean average precision is not defined")

    @classmethod
    def of_logits(cls, logits: np.ndarray, truth: np.ndarray) -> Self:
        """Predictions from logits [m, L]: the likeliest class for rows with one label, else the logits themselves.

        Raises:
          TrainingError: some logits are not finite: the largest of NaNs would be class 0.
        """
        if bad := int((~np.isfinite(logits)).any(1).sum()):
            raise TrainingError(
                f"the classifier returns NaN or infinity for {bad:,} of {len(logits):,} test images; lower "
                "optimizer.base_lr, set optimizer.clip_norm, and start again in another folder"
            )
        return cls(logits if truth.ndim == 2 else logits.argmax(1), truth)

    @property
    def metrics(self) -> Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]]:
        """The scores that apply, by name."""
        return SINGLE_LABEL if self.truth.ndim == 1 else MULTI_LABEL

    def scores(self) -> dict[str, float]:
        """Every score that applies, in [0, 1]."""
        once = np.ones((1, len(self.truth)), np.float32)
        return {name: float(score(self.predicted, self.truth, once)[0]) for name, score in self.metrics.items()}

    def replicates(self, draws: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
        """Scores [draws] of test sets drawn from this one with replacement.

        Predictions for the same test rows get the same draws from the same seed, so that differences and ratios of
        their replicates are paired.
        """
        blocks = [
            [score(self.predicted, self.truth, weights) for score in self.metrics.values()]
            for weights in resampled(len(self.truth), draws, seed)
        ]
        return {name: np.concatenate(parts) for name, *parts in zip(self.metrics, *blocks, strict=True)}

    def intervals(self, draws: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Interval]:
        """Percentile bootstrap interval of every score, over test sets of this size."""
        return {name: percentile_interval(values, level) for name, values in self.replicates(draws, seed).items()}

    def chance(self) -> dict[str, float]:
        """Scores of the best answer that ignores the images.

        `accuracy`: the share of the most frequent class. `macro_accuracy`: 1 / classes present. `macro_map`: the mean
        share of positive rows, over the labels that have any (the average precision of equal scores).
        """
        if self.truth.ndim == 2:
            share = self.truth.mean(0)
            return {"macro_map": float(share[share > 0].mean())}
        _, counts = np.unique(self.truth, return_counts=True)
        return {"accuracy": float(counts.max() / counts.sum()), "macro_accuracy": 1 / len(counts)}

    def absent_labels(self) -> list[int]:
        """Labels without a positive test row: `macro_map` is the mean over the others."""
        return [] if self.truth.ndim == 1 else np.flatnonzero(~self.truth.any(0)).tolist()


def resampled(rows: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Counts of each row in samples with replacement, in blocks of draws: float32 [b, rows]."""
    rng = np.random.default_rng(seed)
    size = max(1, min(draws, _BLOCK_ELEMENTS // rows))
    for start in range(0, draws, size):
        block = min(size, draws - start)
        drawn = rng.integers(rows, size=(block, rows)) + rows * np.arange(block)[:, None]
        yield np.bincount(drawn.ravel(), minlength=block * rows).reshape(block, rows).astype(np.float32)


def percentile_interval(replicates: ArrayLike, level: float = 0.95) -> Interval:
    """The central share `level` of bootstrap replicates.

    A replicate that is not finite (a ratio with a zero denominator) counts as beyond both ends, so the interval is
    unbounded, None, if there are more of these than the share outside one end (compare Fieller 1954). Dropping them
    would condition the interval on a favourable denominator.
    """
    values, outside = np.asarray(replicates, np.float64), (1 - level) / 2
    defined = np.isfinite(values)
    if defined.all() and values.size:
        low, high = np.quantile(values, [outside, 1 - outside])
        return float(low), float(high)
    if 1 - defined.mean() > outside if values.size else True:
        return None, None
    low = np.quantile(np.where(defined, values, -np.inf), outside, method="higher")
    high = np.quantile(np.where(defined, values, np.inf), 1 - outside, method="lower")
    return float(low), float(high)


def seed_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's t interval of the mean over seeds.

    Raises:
      UserError: fewer than two values.
    """
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        raise UserError(f"an interval over seeds needs at least two of them, not {len(values)}")
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def over_seeds(replicates: ArrayLike, seed: int = 0) -> np.ndarray:
    """Replicates [R] of a mean over seeds, in which both seeds and images are drawn: the hierarchical bootstrap.

    Args:
      replicates: [S, R], for S seeds; entries of a column use the same drawn images. With few seeds the seeds' part of
        the variance is underestimated, by a factor (S - 1) / S.
      seed: seed of the draw of the seeds.
    """
    values = np.asarray(replicates, np.float64)
    seeds, draws = values.shape
    chosen = np.random.default_rng(seed).integers(seeds, size=(seeds, draws))
    return np.take_along_axis(values, chosen, axis=0).mean(0)


def retention(scores: ArrayLike, full: ArrayLike, chance: float = 0.0) -> dict[str, np.ndarray]:
    """Share of a model's score that its cuts retain.

    Args:
      scores: [W, ...], score of every width; further axes may be replicates or seeds.
      full: [...], at full width.
      chance: see `Predictions.chance`.

    Returns:
      Three arrays like `scores`, NaN if the denominator is not above zero: `retention`, score / full, as published
      (Hackel et al. 2026); `retention_above_chance`, (score - chance) / (full - chance); `retention_of_best`, score /
      best over the widths, which is below 1 at full width if another width is best.
    """
    scores, full = np.asarray(scores, np.float64), np.asarray(full, np.float64)
    return {
        "retention": scores / _positive(full),
        "retention_above_chance": (scores - chance) / _positive(full - chance),
        "retention_of_best": scores / _positive(scores.max(axis=0)),
    }


def _positive(denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator > 0, denominator, np.nan)
