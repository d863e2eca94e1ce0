"""Features of real images, and their labels."""

import functools

import numpy as np

from scaling.data.sources.registry import open_source
from tests.data.examples import shared


@functools.cache
def real_features(rows: int = 350) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Training and test rows of rssccn7: mean and deviation of the colours in 4 x 4 cells [n, 96], classes [n]."""
    path = shared("rssccn7/images.zip")
    splits = []
    for split in ("train", "test"):
        source = open_source(f"zip:{path}", split)
        examples = [source[i * len(source) // rows] for i in range(rows)]
        cells = np.stack([e["image"] for e in examples]).reshape(rows, 4, 32, 4, 32, 3) / 255
        features = np.concatenate([cells.mean((2, 4)), cells.std((2, 4))], axis=-1).reshape(rows, 96)
        splits.append((features.astype(np.float32), np.array([e["label"] for e in examples])))
    return splits[0], splits[1]


def several_labels(classes: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Rows with several labels [n, 8]: their class of seven, and whether they are brighter than most."""
    bright = features.mean(1) > np.median(features.mean(1))
    return np.column_stack([classes[:, None] == np.arange(7), bright]).astype(np.int64)
