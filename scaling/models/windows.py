"""Tokens of a grid in square windows, for attention within each window as in ViTDet (Li et al., 2203.16527).

Windows begin at the first row and column. The last ones are padded below and to the right, as by detectron2's
`window_partition`.
"""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def windows_of(grid: tuple[int, int], window: int) -> tuple[int, int]:
    """Rows and columns of windows with `window` tokens a side."""
    rows, columns = grid
    return -(-rows // window), -(-columns // window)


def partition(x: Array, grid: tuple[int, int], window: int) -> Array:
    """The tokens of every window, row by row, with zeros for padding. [B, T, D] -> [B W, S S, D]."""
    (rows, columns), (down, across) = grid, windows_of(grid, window)
    x = x.reshape(-1, rows, columns, x.shape[-1])
    x = jnp.pad(x, ((0, 0), (0, down * window - rows), (0, across * window - columns), (0, 0)))
    x = x.reshape(-1, down, window, across, window, x.shape[-1]).swapaxes(2, 3)
    return x.reshape(-1, window**2, x.shape[-1])


def joined(x: Array, grid: tuple[int, int], window: int) -> Array:
    """The inverse of `partition`, without the padding. [B W, S S, ...] -> [B, T, ...]."""
    (rows, columns), (down, across), rest = grid, windows_of(grid, window), x.shape[2:]
    x = x.reshape(-1, down, across, window, window, *rest).swapaxes(2, 3)
    x = x.reshape(-1, down * window, across * window, *rest)[:, :rows, :columns]
    return x.reshape(-1, rows * columns, *rest)


def beyond(grid: tuple[int, int], window: int) -> np.ndarray:
    """Whether each token of every window is padding, bool [W, S S]."""
    (down, across), (rows, columns) = windows_of(grid, window), grid
    outside = np.ones((down * window, across * window), bool)
    outside[:rows, :columns] = False
    return outside.reshape(down, window, across, window).swapaxes(1, 2).reshape(-1, window**2)
