"""Baselines for slimming curves: features that cost almost nothing, or that come from untrained weights.

A cut encoder falls back towards its patch embedding, so a retained score is evidence about its blocks only if it is
above these.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from scaling.encoders.encoder import BATCH, Encoder, in_batches
from scaling.models.config import ViTConfig
from scaling.models.parameters import init_params
from scaling.models.vit import ViT, image_input, pooled, stem

FeatureFunction = Callable[[np.ndarray], np.ndarray]  # normalised images [N, h, w, C] -> float32 [N, D]


def random_weights(encoder: Encoder, seed: int = 0) -> Encoder:
    """The same architecture before training, drawn by `seed`, which can be cut like the encoder. Fixed positions are
    those of the encoder.
    """
    params = _first_weights(encoder.config, seed)
    if encoder.config.fixed_positions:
        params = {**params, "position": encoder.params["position"]}
    return dataclasses.replace(encoder, params=params)


@functools.partial(jax.jit, static_argnums=0)
def _first_weights(c: ViTConfig, seed: int) -> Any:
    return init_params(ViT(c), seed, image_input(c))


def band_features(images: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of every band over the pixels. [N, h, w, C] -> [N, 2 C]."""
    return np.concatenate([images.mean((1, 2)), images.std((1, 2))], axis=1).astype(np.float32)


def _of_tokens(encoder: Encoder, final_norm: bool) -> FeatureFunction:
    """Mean of the tokens that enter the first block, with or without the final norm."""

    def features(images: np.ndarray) -> np.ndarray:
        encoder.check(images)
        embedded = functools.partial(_embed, encoder.config, final_norm)
        return in_batches(embedded, encoder.replicated, images, BATCH)

    return features


@functools.partial(jax.jit, static_argnums=(0, 1))
def _embed(c: ViTConfig, final_norm: bool, params: Any, images: jax.Array) -> jax.Array:
    tokens = stem(params, images, c)
    if not final_norm:
        return tokens[:, c.prefix :].mean(1)
    return pooled(params, tokens, c, "mean")


# name -> (encoder, pool, seed) -> features of normalised images
CONTROLS: dict[str, Callable[[Encoder, str, int], FeatureFunction]] = {
    # the mean of the embedded patches with their positions
    "patch_embedding": lambda encoder, pool, seed: _of_tokens(encoder, final_norm=False),
    # the encoder without its blocks, the limit of cutting
    "depth_0": lambda encoder, pool, seed: _of_tokens(encoder, final_norm=True),
    "random_weights": lambda encoder, pool, seed: functools.partial(random_weights(encoder, seed).encode, pool=pool),
    "band_statistics": lambda encoder, pool, seed: band_features,
}
