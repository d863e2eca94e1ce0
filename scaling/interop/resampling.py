"""Resampling of what an encoder learned on another grid, with the interpolation of the published code."""

import math

import jax
import numpy as np


def resample_positions(table: np.ndarray, grid: int, antialias: bool) -> np.ndarray:
    """Position embeddings on another square grid, by cubic convolution.

    Args:
      table: [T, D] of a square grid.
      grid: side of the new one.
      antialias: as timm and torchgeo do (a = -0.5, equal to `jax.image.resize`), or as torch does without (a = -0.75).

    Returns:
      float32 [grid * grid, D].
    """
    old = math.isqrt(len(table))
    if old == grid:
        return table
    square = np.asarray(table, np.float32).reshape(old, old, -1)
    if antialias:
        return np.asarray(jax.image.resize(square, (grid, grid, square.shape[2]), "bicubic")).reshape(grid**2, -1)
    weights = _cubic_weights(old, grid)
    return np.einsum("ij,kl,jld->ikd", weights, weights, square).reshape(grid**2, -1).astype(np.float32)


def _cubic_weights(old: int, new: int, a: float = -0.75) -> np.ndarray:
    """What each new sample takes of the old ones, as torch's bicubic without antialiasing. [new, old]."""
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


def resize_kernel(kernel: np.ndarray, patch: int) -> np.ndarray:
    """A patch embedding for another patch size that does to resized patches what the old one did to patches: the
    pseudo-inverse of the resizing (FlexiViT, Beyer et al., 2212.08013, section 3.4).

    Args:
      kernel: [D, C, p, p].
      patch: side of the new patches.

    Returns:
      float32 [D, C, patch, patch].
    """
    old = kernel.shape[-1]
    if old == patch:
        return kernel
    basis = np.eye(old**2, dtype=np.float32).reshape(-1, old, old)
    resizing = np.asarray(jax.image.resize(basis, (len(basis), patch, patch), "bicubic"), np.float64)
    inverse = np.linalg.pinv(resizing.reshape(len(basis), -1))  # [patch * patch, p * p]
    flat = np.asarray(kernel, np.float64).reshape(*kernel.shape[:2], -1)
    return (flat @ inverse.T).reshape(*kernel.shape[:2], patch, patch).astype(np.float32)
