"""A pyramid with strides 4, 8, 16 and 32 (for patches of 16 pixels) from four equal-sized maps at four depths of a ViT.

After RVSA (ViTAE-Transformer/Remote-Sensing-RVSA): doubling is a transposed convolution, quadrupling two of them with
norm and GELU in between, and halving is max pooling; the width is unchanged.
"""

from collections.abc import Sequence

import jax

from scaling.models.heads.layers import Head, Layer, Layers
from scaling.models.heads.norms import Norms
from scaling.models.heads.spatial import double, halve
from scaling.models.ops import gelu


def places(grid: tuple[int, int]) -> tuple[int, int, int, int]:
    """Number of places of the four maps, from the rows and columns of patches."""
    rows, columns = grid
    return 16 * rows * columns, 4 * rows * columns, rows * columns, (rows // 2) * (columns // 2)


def pyramid_layers(width: int, grid: tuple[int, int]) -> Layers:
    """The three transposed convolutions."""
    _, fine, middle, _ = places(grid)
    up = {"inputs": width, "outputs": width, "size": 2, "bias": True, "deviation": width**-0.5}
    return {
        "up4_first": Layer(places=middle, norm=True, of_encoder=True, **up),
        "up4_second": Layer(places=fine, **up),
        "up2": Layer(places=middle, of_encoder=True, **up),
    }


def pyramid(p: Head, maps: Sequence[jax.Array], norms: Norms) -> list[jax.Array]:
    """maps: four [B, h, w, C] -> [B, 4h, 4w, C], [B, 2h, 2w, C], [B, h, w, C], [B, h // 2, w // 2, C]."""
    finest, fine, middle, coarse = maps
    finest = double(finest, p["up4_first"]["kernel"], p["up4_first"]["bias"])
    finest = gelu(norms("up4_first", p["up4_first_norm"], finest))
    finest = double(finest, p["up4_second"]["kernel"], p["up4_second"]["bias"])
    return [finest, double(fine, p["up2"]["kernel"], p["up2"]["bias"]), middle, halve(coarse)]
