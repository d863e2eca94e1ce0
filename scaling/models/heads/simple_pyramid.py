"""ViTDet's simple feature pyramid: maps of several strides from the one map that leaves a plain encoder.

After detectron2's `SimpleFeaturePyramid` (Li et al., 2203.16527): one or two transposed convolutions up, one max
pooling down, then a 1 x 1 and a 3 x 3 convolution without bias, each with LayerNorm over the channels. Two further
levels are every second place of the one before.

Levels are counted from the finest: for patches of 16 pixels they have the strides 4, 8, 16, 32, 64 and 128.
"""

from collections.abc import Sequence
from typing import Any

import jax

from scaling.models.heads.layers import Head, Layer, Layers, applied
from scaling.models.heads.spatial import double, halve
from scaling.models.ops import gelu, layer_norm

EPS = 1e-6
LEVELS = 6
_CONVOLVED = 4  # the others are subsampled


def level_shapes(grid: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of all levels, from those of the patches."""

    def of_side(places: int) -> list[int]:
        half = places // 2
        return [4 * places, 2 * places, places, half, -(-half // 2), -(-half // 4)]

    return list(zip(*map(of_side, grid), strict=True))


def level_strides(patch_size: int) -> list[float]:
    """Pixels between two columns of each level."""
    return [patch_size * 2.0 ** (level - 2) for level in range(LEVELS)]


def simple_pyramid_layers(width: int, grid: tuple[int, int], channels: int, levels: Sequence[int]) -> Layers:
    """Layers of the requested levels."""
    shapes = level_shapes(grid)
    patches = shapes[2][0] * shapes[2][1]
    up: Any = {"size": 2, "bias": True, "deviation": width**-0.5}
    layers: Layers = {}
    if 0 in levels:
        layers["up4_first"] = Layer(width, width // 2, patches, norm=True, of_encoder=True, **up)
        layers["up4_second"] = Layer(width // 2, width // 4, 4 * patches, **up)
    if 1 in levels:
        layers["up2"] = Layer(width, width // 2, patches, of_encoder=True, **up)
    for level in levels:
        if level < _CONVOLVED:
            inputs, places = (width // 4, width // 2, width, width)[level], shapes[level][0] * shapes[level][1]
            layers[f"lateral_{level}"] = Layer(inputs, channels, places, norm=True, of_encoder=level >= 2)
            layers[f"smooth_{level}"] = Layer(channels, channels, places, size=3, norm=True)
    return layers


def simple_pyramid(p: Head, x: jax.Array, levels: Sequence[int]) -> list[jax.Array]:
    """x: [B, rows, columns, width] -> [B, h, w, channels] of every requested level."""
    maps: list[jax.Array] = []
    for level in levels:
        if level >= _CONVOLVED:
            maps.append(maps[-1][:, ::2, ::2])
            continue
        lateral = _normed(p, f"lateral_{level}", applied(p, f"lateral_{level}", _scaled(p, x, level)))
        maps.append(_normed(p, f"smooth_{level}", applied(p, f"smooth_{level}", lateral)))
    return maps


def _scaled(p: Head, x: jax.Array, level: int) -> jax.Array:
    if level == 0:
        x = gelu(_normed(p, "up4_first", double(x, p["up4_first"]["kernel"], p["up4_first"]["bias"])))
        return double(x, p["up4_second"]["kernel"], p["up4_second"]["bias"])
    if level == 1:
        return double(x, p["up2"]["kernel"], p["up2"]["bias"])
    return x if level == 2 else halve(x)


def _normed(p: Head, name: str, x: jax.Array) -> jax.Array:
    return layer_norm(x, p[f"{name}_norm"]["scale"], p[f"{name}_norm"]["bias"], EPS)
