"""Distance of the features of smaller encoders from those of the whole one, without labels."""

import functools
from collections.abc import Sequence

import numpy as np

from scaling.core.errors import UserError
from scaling.encoders.encoder import Encoder
from scaling.evaluation.scores import percentile_interval

_DAMPING = 1e-3  # share of the mean variance of a channel


class Distance:
    """Compares features with those of the whole encoder on held-out images.

    Missing channels are predicted from the kept ones by ridge regression, fitted to the whole encoder's pooled features
    of the images to fit to.

    Args:
      encoder: the whole encoder.
      fitted: normalised images [N, h, w, C] to fit to.
      held_out: normalised images on which features are compared.
      pool: `mean` or `cls`.
    """

    def __init__(self, encoder: Encoder, fitted: np.ndarray, held_out: np.ndarray, pool: str = "mean"):
        self._encoder, self._fitted, self.pool = encoder, fitted, pool
        self._full = encoder.encode(held_out, pool).astype(np.float64)
        self.spread = self.spread_of(slice(None))
        if not self.spread.sum():
            raise UserError("all images have the same features, so no distance is defined; give images that differ")

    def spread_of(self, part: slice) -> np.ndarray:
        """Squared distance of the whole encoder's features of the given images from their mean, float64 [n]."""
        full = self._full[part]
        return np.square(full - full.mean(0)).sum(1)

    def errors(self, features: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """Squared distance from the whole encoder's features, for every image, float64 [N].

        features: [N, D']; channels: [D'], their indices in the whole encoder.
        """
        given = features.astype(np.float64)
        found = np.empty_like(self._full)
        found[:, channels] = given
        if len(channels) < found.shape[1]:
            rest = np.setdiff1d(np.arange(found.shape[1]), channels)
            mean, covariance = self._moments
            own = covariance[np.ix_(channels, channels)]
            damped = own + _DAMPING * np.trace(own) / len(own) * np.eye(len(own))
            maps = np.linalg.solve(damped, covariance[np.ix_(channels, rest)])
            found[:, rest] = mean[rest] + (given - mean[channels]) @ maps
        return np.square(found - self._full).sum(1)

    @functools.cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean [D] and covariance [D, D] of the features of the whole encoder."""
        x = self._encoder.encode(self._fitted, self.pool).astype(np.float64)
        return x.mean(0), np.cov(x.T, bias=True)


def relative_error(errors: np.ndarray, spread: np.ndarray) -> float:
    """Root of the summed squared distances over the summed squared deviations from the mean [N]."""
    return float(np.sqrt(errors.sum() / spread.sum()))


def error_interval(
    errors: Sequence[np.ndarray], spread: np.ndarray, draws: int = 1000
) -> tuple[float | None, float | None]:
    """95 % bootstrap interval over images, of one encoder's relative error, or of the first encoder's minus the
    second's on the same images.
    """
    images = len(spread)
    weights = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), draws)
    below = weights @ spread
    roots = [np.sqrt(weights @ one / np.where(below > 0, below, np.nan)) for one in errors]
    return percentile_interval(roots[0] - roots[1] if len(roots) > 1 else roots[0])
