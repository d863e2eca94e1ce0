"""Statistics of features as a point cloud: their correlation, and the number of directions over which they spread.

Everything follows from the mean and the D x D scatter matrix of the features, which are summed batch by batch in
float64; the samples are never held together. The statistics are those of arXiv 2601.22841.
"""

import dataclasses
from collections.abc import Iterable
from typing import Self

import numpy as np

from scaling.core.errors import UserError

CONSTANT = 1e-12  # a standard deviation below this share of the mean is rounding: float32 features resolve 6e-8


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of samples; the sum of two is that of all their samples (Chan et al., 1979).

    Attributes:
      count: number of samples N.
      mean: float64 [D].
      scatter: float64 [D, D], the sum over samples of the outer product of their deviation from the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """The moments of one batch of features [N, D].

        Raises:
          UserError: no samples, another number of dimensions, or NaN or infinity.
        """
        x = np.asarray(features, np.float64)
        if x.ndim != 2 or not x.size:
            raise UserError(f"features of shape {list(x.shape)}; must be [samples, features], at least one of each")
        if not np.isfinite(x).all():
            raise UserError("the features contain NaN or infinity")
        mean = x.mean(0)
        deviation = x - mean
        return cls(len(x), mean, deviation.T @ deviation)

    def __add__(self, other: "Moments") -> "Moments":
        if self.mean.shape != other.mean.shape:
            raise UserError(f"a batch has {len(other.mean)} features, the ones before it have {len(self.mean)}")
        count, apart = self.count + other.count, other.mean - self.mean
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), self.scatter + other.scatter + between)


def accumulate(batches: Iterable[np.ndarray]) -> Moments:
    """The moments of all samples of an iterator of batches, each [B, D]; one batch is held at a time.

    Raises:
      UserError: no batches; or see `Moments.of`.
    """
    total: Moments | None = None
    for batch in batches:
        total = Moments.of(batch) if total is None else total + Moments.of(batch)
    if total is None:
        raise UserError("there are no features to compute statistics of")
    return total


def mean_feature_correlation(m: Moments) -> float:
    """Mean over the pairs i < j of features of |corr(e_i, e_j)|. Pairs with a constant feature, whose correlation is
    undefined, are left out.

    Raises:
      UserError: fewer than two features vary.
    """
    deviation = np.sqrt(np.diag(m.scatter) / m.count)
    varies = deviation > CONSTANT * np.abs(m.mean)
    if varies.sum() < 2:
        raise UserError(f"{varies.sum()} of {len(varies)} features vary; a correlation needs two that do")
    scatter = m.scatter[np.ix_(varies, varies)]
    scale = np.sqrt(np.diag(scatter))
    correlation = np.abs(scatter / np.outer(scale, scale))
    return float(correlation[np.triu_indices(len(scale), 1)].mean())


def explained_variance(m: Moments) -> np.ndarray:
    """Share of the variance along each principal component, descending, float64 [min(D, N - 1)] or fewer: components
    that are zero up to rounding are left out.

    Raises:
      UserError: the features do not vary.
    """
    _check_variance(m)
    eigenvalues = np.linalg.eigvalsh(m.scatter)[::-1]
    significant = eigenvalues > eigenvalues[0] * len(eigenvalues) * np.finfo(np.float64).eps
    significant[max(m.count - 1, 1) :] = False
    return eigenvalues[significant] / np.trace(m.scatter)


def explained_variance_slope(m: Moments, components: int) -> float:
    """Slope of the least-squares line through log share of variance against log index, over the first components.

    Args:
      m: moments of the features.
      components: number of components in the fit; the slope depends on it, and arXiv 2601.22841 does not state its own.

    Raises:
      UserError: fewer than two components, or more than the features have.
    """
    if components < 2:
        raise UserError(f"components={components}: a slope needs at least 2")
    shares = explained_variance(m)
    if components > len(shares):
        raise UserError(
            f"components={components}, but {m.count} samples of {len(m.mean)} features have variance along "
            f"{len(shares)} directions only"
        )
    return float(np.polyfit(np.log(np.arange(1, components + 1)), np.log(shares[:components]), 1)[0])


def participation_ratio(m: Moments) -> float:
    """Effective dimensionality (sum lambda)^2 / sum lambda^2 of the eigenvalues of the covariance: 1 to D.

    Raises:
      UserError: the features do not vary.
    """
    _check_variance(m)
    return float(np.trace(m.scatter) ** 2 / np.square(m.scatter).sum())


def _check_variance(m: Moments) -> None:
    if not (np.sqrt(np.diag(m.scatter) / m.count) > CONSTANT * np.abs(m.mean)).any():
        raise UserError(f"all features are constant over the {m.count} samples: there is no variance to explain")
