"""Encoders that need no training, and images for them."""

import numpy as np

from scaling.data.config import DataConfig
from scaling.encoders.controls import random_weights
from scaling.encoders.encoder import Encoder
from scaling.models.config import ViTConfig
from scaling.training.config import TrainConfig

SMALL = {"image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "heads": 2, "head_dim": 16, "mlp": 64}


def blank_encoder(data: DataConfig | None = None, **fields) -> Encoder:
    """An encoder of 16 x 16 images without weights; by default it takes colours between 0 and 255."""
    config = ViTConfig(**{**SMALL, **fields})
    data = data or DataConfig(mean=(100.0,) * config.bands, std=(50.0,) * config.bands)
    return Encoder(config, None, TrainConfig(data=data))


def small_encoder(**fields) -> Encoder:
    """The same with its first weights."""
    return random_weights(blank_encoder(**fields))


def images(n, seed=0):
    """Normalised images."""
    return np.random.default_rng(seed).normal(size=(n, 16, 16, 3))


def pixels_of(n, dtype=np.uint8, scale=1.0):
    """Colours around the mean and deviation of `small_encoder`, 100 and 50, in another unit."""
    x = np.random.default_rng(0).normal(100, 50, (n, 16, 16, 3)).clip(0, 255)
    return (x * scale).astype(dtype)
