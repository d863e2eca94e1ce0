"""Resampling of a patch embedding that was learned for another patch size."""

import jax
import numpy as np


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
