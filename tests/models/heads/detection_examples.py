"""A detector of random weights, the maps that its head reads and objects to find."""

import jax
import numpy as np

from scaling.models.detector import DetectorConfig, abstract_detector
from scaling.models.heads.detection import Truth
from scaling.models.heads.simple_pyramid import level_shapes

CONFIG = DetectorConfig(
    image_size=64, patch_size=8, width=32, depth=1, heads=2, head_dim=16, mlp=64, classes=3, channels=8, hidden=16,
    proposals=40, anchor_samples=32, roi_samples=24, detections=30,
)  # fmt: skip
IMAGES = 2


def weights(c=CONFIG, seed=0):
    """Weights of a head in which every decision is clear."""
    rng = np.random.default_rng(seed)

    def draw(x):
        fan_in = max(int(np.prod(x.shape[:-1])), 1)
        return rng.normal(0, 1 / fan_in**0.5, x.shape).astype(np.float32)

    return jax.tree.map(draw, abstract_detector(c)[0]["head"])


def maps(c=CONFIG, seed=1):
    """Maps of every level [B, h, w, C]."""
    rng = np.random.default_rng(seed)
    shapes = [level_shapes(c.grid)[level] for level in c.detector.levels]
    return [rng.normal(size=(IMAGES, *shape, c.channels)).astype(np.float32) for shape in shapes]


def truth(c=CONFIG, seed=2, room=6, counts=(4, 0)):
    """Objects of every image; the last has none."""
    rng = np.random.default_rng(seed)
    sides = np.sort(rng.uniform(6, 40, (IMAGES, room, 2)), axis=-1)[..., ::-1]
    boxes = np.concatenate(
        (rng.uniform(8, 56, (IMAGES, room, 2)), sides, rng.uniform(-1.5, 1.5, (IMAGES, room, 1))), axis=-1
    )
    there = np.arange(room) < np.array(counts)[:, None]
    boxes = np.where(there[..., None], boxes, 0)
    return Truth(boxes.astype(np.float32), rng.integers(0, c.classes, (IMAGES, room)).astype(np.int32), there)


def keys(seed=3):
    """Keys of every image and stage."""
    return jax.random.key_data(jax.random.split(jax.random.key(seed), (IMAGES, 2)))


def greedy(boxes, scores, threshold, overlap, keep):
    """Suppression of one class, read aloud: the numbers that are kept, best first."""
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if all(float(overlap(boxes[i], boxes[j])) <= threshold for j in kept):
            kept.append(int(i))
    return kept[:keep]
