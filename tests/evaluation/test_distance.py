"""How far the features of a narrower encoder are from the whole one's, by formulas of their own."""

import numpy as np
import pytest

from scaling.evaluation.distance import Distance, relative_error
from tests.slimming.encoders import images, structured


@pytest.mark.parametrize(("pool", "norm"), [("mean", "tokens"), ("mean", "pooled"), ("cls", "tokens")])
def test_channels_that_were_cut_are_predicted_from_features_as_they_are_pooled(pool, norm):
    e = structured(final_norm=norm)
    fitted, held_out = images(80, e.config), images(30, e.config, seed=1)
    distance, channels = Distance(e, fitted, held_out, pool), np.arange(0, 16, 2)
    full = e.features(held_out, pool, normalised=True).astype(np.float64)
    known = e.features(fitted, pool, normalised=True).astype(np.float64)
    errors = distance.errors(full[:, channels].astype(np.float32), channels)
    assert errors == pytest.approx(_predicted(known, full, channels), rel=1e-3, abs=1e-6)
    assert relative_error(errors, distance.spread) < 1  # nearer than the mean of all features


def _predicted(known, full, channels):
    """Squared errors [N] of ridge regression, as least squares with the damping in rows of its own."""
    centred = known - known.mean(0)
    own = centred[:, channels]
    damping = np.sqrt(1e-3 * np.mean(own.var(0)) * len(own)) * np.eye(len(channels))
    rows = np.concatenate([own, damping]), np.concatenate([centred, np.zeros((len(channels), full.shape[1]))])
    found = known.mean(0) + (full - known.mean(0))[:, channels] @ np.linalg.lstsq(*rows, rcond=None)[0]
    found[:, channels] = full[:, channels]
    return np.square(found - full).sum(1)
