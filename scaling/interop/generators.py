"""Patch embeddings that a small network generates from wavelengths, once, since they depend on nothing else.

DOFA (Xiong et al., 2403.15356), Copernicus-FM (Wang et al., 2503.11849) and Clay have the same network; layouts and
factors are those of torchgeo 0.8.1 and terratorch 1.2.11. `scaling.models.stems.wavelengths` describes it.
"""

import math
from collections.abc import Callable

import jax
import numpy as np
from numpy.typing import ArrayLike

from scaling.interop.mapping import Arrays

WIDTH = 128  # width of the encoding of a band
HEADS = 4
NORM_EPS = 1e-5


def sincos(values: ArrayLike, width: int, last: bool = False) -> np.ndarray:
    """[sin | cos] at frequencies from 1 down to 1/10,000, the latter left out unless `last`. float32 [N, width].

    The arithmetic is float32, as in training: angles of thousands of radians lose digits, which must be reproduced.
    """
    steps = width // 2
    exponent = np.arange(steps, dtype=np.float32) / np.float32(steps - last)
    angles = np.asarray(values, np.float32)[:, None] * (np.float32(1) / np.float32(10_000) ** exponent)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def fourier(values: ArrayLike, width: int, lower: float, upper: float) -> np.ndarray:
    """[sin | cos] of 2 pi x / period, the periods evenly spaced on a log scale (Aurora, 2405.13063). [N, width]."""
    periods = np.logspace(math.log10(lower), math.log10(upper), width // 2)
    angles = np.asarray(values, np.float64)[:, None] * (2 * np.pi / periods)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def gelu(x: np.ndarray) -> np.ndarray:
    return np.asarray(jax.nn.gelu(x.astype(np.float32), approximate=False), np.float64)


def generate(
    arrays: Arrays,
    bands: np.ndarray,
    hidden: tuple[str, str] = ("w1", "w2"),
    activation: Callable[[np.ndarray], np.ndarray] = relu,
    layer: str = "transformer_encoder.layers.0",
) -> tuple[np.ndarray, np.ndarray]:
    """Runs the network on the encodings of bands.

    Args:
      arrays: arrays of the network, `fclayer.*` and `weight_generator.*`.
      bands: [C, WIDTH].
      hidden, activation: names of the two matrices of the residual MLP, and its activation.
      layer: prefix of the transformer layer.

    Returns:
      Kernels [C, pixels and width of the encoder in the order of the file], and the bias [D].
    """
    a = {key: np.asarray(x, np.float64) for key, x in arrays.items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ a[f"{name}.weight"].T + a[f"{name}.bias"]

    y = activation(linear(f"fclayer.{hidden[0]}", bands))
    bands = bands + activation(linear(f"fclayer.{hidden[1]}", y))
    first, last = a["weight_generator.weight_tokens"], a["weight_generator.bias_token"]
    out = _post_norm_layer(a, f"weight_generator.{layer}", np.concatenate([first, bands, last]))
    kernels = linear("weight_generator.fc_weight", out[len(first) : -1] + bands)
    return kernels, linear("weight_generator.fc_bias", out[-1])


def _post_norm_layer(a: Arrays, name: str, x: np.ndarray) -> np.ndarray:
    """torch's TransformerEncoderLayer with norms after the residual sums. [T, D] -> [T, D]."""

    def linear(module: str, x: np.ndarray) -> np.ndarray:
        return x @ a[f"{name}.{module}weight"].T + a[f"{name}.{module}bias"]

    def norm(module: str, x: np.ndarray) -> np.ndarray:
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + NORM_EPS)
        return y * a[f"{name}.{module}.weight"] + a[f"{name}.{module}.bias"]

    q, k, v = linear("self_attn.in_proj_", x).reshape(len(x), 3, HEADS, -1).transpose(1, 2, 0, 3)  # each [N, T, H]
    logits = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    mixed = (weights / weights.sum(-1, keepdims=True)) @ v
    x = norm("norm1", x + linear("self_attn.out_proj.", mixed.swapaxes(0, 1).reshape(len(x), -1)))
    return norm("norm2", x + linear("linear2.", gelu(linear("linear1.", x))))


def as_convolution(kernels: np.ndarray, bias: np.ndarray, pixels_first: bool) -> np.ndarray:
    """The kernels of bands in torch's layout of a convolution.

    Args:
      kernels: [C, pixels x width], or [C, width x pixels].
      bias: [D], which gives the width.
      pixels_first: whether the layout is pixels x width.

    Returns:
      [D, C, p, p].
    """
    width = len(bias)
    patch = math.isqrt(kernels.shape[1] // width)
    if pixels_first:
        return kernels.reshape(-1, patch, patch, width).transpose(3, 0, 1, 2)
    return kernels.reshape(-1, width, patch, patch).swapaxes(0, 1)


def without(arrays: Arrays, prefix: str) -> tuple[Arrays, Arrays]:
    """The arrays with a prefix, which is removed, and the others."""
    inside = {key.removeprefix(prefix): x for key, x in arrays.items() if key.startswith(prefix)}
    return inside, {key: x for key, x in arrays.items() if not key.startswith(prefix)}
