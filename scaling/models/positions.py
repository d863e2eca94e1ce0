"""Position embeddings: fixed ones, and any table resampled to another grid of patches."""

from collections.abc import Callable

import jax
import numpy as np


def sincos_2d(rows: int, columns: int, width: int, spacing: float = 1.0) -> np.ndarray:
    """Fixed 2-D sine-cosine embedding of MAE (He et al., 2111.06377; facebookresearch/mae `pos_embed.py`).

    The first half of the channels encodes the column, the second half the row; each half is [sin | cos] at the
    frequencies 10000^-(i / (width / 4)).

    Args:
      rows, columns: the grid of patches.
      width: number of channels, a multiple of 4.
      spacing: distance between two patches; for Scale-MAE the metres per pixel.

    Returns:
      float32 [rows * columns, width], row-major like the patches.
    """
    y, x = np.meshgrid(np.arange(rows, dtype=np.float64), np.arange(columns, dtype=np.float64), indexing="ij")
    frequency = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    angles = [spacing * position.reshape(-1, 1) * frequency for position in (x, y)]  # each [rows * columns, width / 4]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


def sincos_2d_rows(rows: int, columns: int, width: int) -> np.ndarray:
    """`sincos_2d` with the row in the first half of the channels: MoCo v3's (Chen et al., 2104.02057; of a square in
    facebookresearch/moco-v3 `vits.py`, which calls the first axis of the patches w).
    """
    return np.roll(sincos_2d(rows, columns, width), width // 2, axis=1)


# Embeddings without parameters, by the value of `ViTConfig.position`.
FIXED: dict[str, Callable[[int, int, int], np.ndarray]] = {"sincos": sincos_2d, "sincos_rows": sincos_2d_rows}


def resample_positions(
    table: np.ndarray, old: tuple[int, int], new: tuple[int, int], antialias: bool = True
) -> np.ndarray:
    """Position embeddings on another grid, by cubic convolution as the published code does it.

    Args:
      table: [T, D], embeddings of the old grid, row by row.
      old, new: rows and columns of the grids.
      antialias: True as in timm and torchgeo (a = -0.5, equal to `jax.image.resize`); False as in torch (a = -0.75).

    Returns:
      float32 [rows * columns, D] for the new grid; the same table if the grids are equal.
    """
    if old == new:
        return table
    square = np.asarray(table, np.float32).reshape(*old, -1)
    width = square.shape[-1]
    if antialias:
        return np.asarray(jax.image.resize(square, (*new, width), "bicubic")).reshape(-1, width)
    rows, columns = (_cubic_weights(*sides) for sides in zip(old, new, strict=True))
    return np.einsum("ij,kl,jld->ikd", rows, columns, square).reshape(-1, width).astype(np.float32)


def _cubic_weights(old: int, new: int, a: float = -0.75) -> np.ndarray:
    """Weights of the old samples in each new one, as in torch's bicubic without antialiasing, [new, old]."""
    weights = np.zeros((new, old))
    places = (np.arange(new) + 0.5) * old / new - 0.5
    for tap in range(-1, 3):
        index = np.floor(places) + tap
        x = np.abs(places - index)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        at = np.clip(index, 0, old - 1).astype(int)
        np.add.at(weights, (np.arange(new), at), np.where(x <= 1, near, far))
    return weights
