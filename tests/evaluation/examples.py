"""What the tests of this folder share: an encoder that needs no training, and features of real images."""

import functools

import numpy as np

from scaling.data.config import DataConfig
from scaling.data.sources import open_source
from scaling.evaluation.controls import random_weights
from scaling.evaluation.encoder import Encoder
from scaling.models.vit import ViTConfig
from scaling.training.config import TrainConfig
from tests.data.examples import shared

SMALL = {"image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "heads": 2, "head_dim": 16, "mlp": 64}


def blank_encoder(data: DataConfig | None = None, **fields) -> Encoder:
    """An encoder of 16 x 16 images without weights; by default it takes colours between 0 and 255."""
    config = ViTConfig(**{**SMALL, **fields})
    data = data or DataConfig(mean=(100.0,) * config.bands, std=(50.0,) * config.bands)
    return Encoder(config, None, TrainConfig(data=data))


def small_encoder(**fields) -> Encoder:
    """The same with its first weights."""
    return random_weights(blank_encoder(**fields))


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
