"""Fixed position embeddings."""

import numpy as np


def sincos_2d(rows: int, columns: int, width: int, spacing: float = 1.0) -> np.ndarray:
    """Fixed 2-D sine-cosine embedding of MAE (He et al., 2111.06377; facebookresearch/mae `pos_embed.py`).

    The first half of the channels encodes the column, the second half the row; each half is [sin | cos] at the
    frequencies 10000^-(i / (width / 4)).

    Args:
      rows, columns: the grid of patches.
      width: number of channels, a multiple of 4.
      spacing: between two patches; the metres of a pixel for Scale-MAE.

    Returns:
      float32 [rows * columns, width], row-major like the patches.
    """
    y, x = np.meshgrid(np.arange(rows, dtype=np.float64), np.arange(columns, dtype=np.float64), indexing="ij")
    frequency = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    angles = [spacing * position.reshape(-1, 1) * frequency for position in (x, y)]  # each [rows * columns, width / 4]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)
