"""The loss is the mean over the pixels that count, however a batch is divided."""

import numpy as np
from scipy.special import log_softmax

from scaling.models.heads.loss import pixel_losses, shares

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(4, 6, 5, 3)).astype(np.float32)
MASK = RANDOM.integers(0, 3, (4, 6, 5)).astype(np.uint8)
MASK[1, :4], MASK[3] = 255, 255  # in parts, and as a whole


def mean(logits, mask, share):
    return np.mean(np.asarray(pixel_losses(logits, mask, 255)).sum((1, 2)) * np.asarray(share))


def test_ignored_pixels_count_neither_above_nor_below():
    said = log_softmax(LOGITS.astype(np.float64), axis=-1)
    each = [-said[(*at, MASK[at])] for at in np.ndindex(MASK.shape) if MASK[at] != 255]
    assert len(each) == 4 * 30 - 20 - 30
    np.testing.assert_allclose(mean(LOGITS, MASK, shares(MASK, 255)), np.mean(each), rtol=1e-6)
    assert abs(mean(LOGITS, MASK, np.ones(4) / 30) - np.mean(each)) > 0.1  # the mean over all pixels


def test_the_parts_of_a_batch_have_the_mean_of_the_whole():
    share = np.asarray(shares(MASK, 255))
    parts = [mean(LOGITS[i::2], MASK[i::2], share[i::2]) for i in range(2)]
    np.testing.assert_allclose(np.mean(parts), mean(LOGITS, MASK, share), rtol=1e-6)


def test_without_a_pixel_that_counts_there_is_no_loss():
    nothing = np.full_like(MASK, 255)
    assert mean(LOGITS, nothing, shares(nothing, 255)) == 0
