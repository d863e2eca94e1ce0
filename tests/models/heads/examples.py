"""A head of random weights and the maps it reads."""

import jax
import numpy as np

from scaling.models.segmenter import SegmenterConfig, abstract_segmenter

CONFIG = SegmenterConfig(
    image_size=112, patch_size=8, width=32, depth=4, heads=2, head_dim=16, mlp=64, classes=5, channels=16,
    auxiliary_channels=8, norm_groups=4,
)  # fmt: skip
IGNORE = 255


def weights(c=CONFIG, seed=0, dtype=np.float32):
    """Weights of a head, none of them zero or one."""
    rng = np.random.default_rng(seed)

    def draw(x):
        fan_in = max(int(np.prod(x.shape[:-1])), 1)
        return rng.normal(0.1 if len(x.shape) == 1 else 0, 1.5 / fan_in**0.5, x.shape).astype(dtype)

    return jax.tree.map(draw, abstract_segmenter(c)[0]["head"])


def maps(c=CONFIG, images=2, seed=1, dtype=np.float32):
    """Four maps [B, h, w, C]."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(images, *c.grid, c.width)).astype(dtype) for _ in range(4)]


def mask(c=CONFIG, images=2, seed=2):
    """Classes and, for a fifth of the pixels, the ignored value; more in the second image."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, c.classes, (images, *c.image_shape))
    hidden = rng.random(labels.shape) < np.linspace(0.2, 0.6, images)[:, None, None]
    return np.where(hidden, IGNORE, labels).astype(np.uint8)
