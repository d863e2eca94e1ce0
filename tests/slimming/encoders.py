"""Encoders with random weights, none of them zero or one, small enough to inspect every number."""

from typing import Any

import jax
import numpy as np

from scaling.encoders.encoder import Encoder
from scaling.models.config import ViTConfig
from scaling.models.vit import abstract_vit
from scaling.training.config import TrainConfig

SIZES: dict[str, Any] = {
    "image_size": 8,
    "patch_size": 4,
    "width": 16,
    "depth": 2,
    "heads": 3,
    "head_dim": 8,
    "mlp": 20,
}


def encoder(seed: int = 0, **overrides: Any) -> Encoder:
    c = ViTConfig(**{**SIZES, **overrides})
    random = np.random.default_rng(seed)
    scale = 1.2 / np.sqrt(c.width)
    params = jax.tree.map(lambda x: (0.1 + scale * random.normal(size=x.shape)).astype(np.float32), abstract_vit(c)[0])
    return Encoder(c, params, TrainConfig())


def structured(seed: int = 0, **overrides: Any) -> Encoder:
    """Like `encoder`, with units of decreasing strength in arbitrary coordinates, as after training.

    Every kernel that makes or reads units has singular values that fall as 1/i, in random directions.
    """
    e, random = encoder(seed, **overrides), np.random.default_rng(seed)
    blocks = dict(e.params["blocks"])
    for group in ("qkv", "mlp_in"):
        kernel = blocks[group]["kernel"]  # [L, D, ...]
        u, s, vt = np.linalg.svd(random.normal(size=(len(kernel), kernel.shape[1], kernel[0, 0].size)), False)
        falling = s / np.arange(1, s.shape[1] + 1)
        blocks[group] = {
            **blocks[group],
            "kernel": (u * falling[:, None] @ vt).reshape(kernel.shape).astype(np.float32),
        }
    return Encoder(e.config, {**e.params, "blocks": blocks}, e.train)


def images(n: int, c: ViTConfig, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, c.image_size, c.image_size, c.bands)).astype(np.float32)
