"""Convolutions, pooling and resizing of maps [B, h, w, C], as torch defines them.

Pooling and resizing are linear and separable: a matrix for the rows and one for the columns, computed on the host.
"""

import jax
import jax.numpy as jnp
import numpy as np

from scaling import axes
from scaling.models.ops import folds, wide_type

Array = jax.Array


def convolve(x: Array, kernel: Array) -> Array:
    """A convolution that keeps the size, zeros beyond the border. kernel: [k, k, C, E], k odd -> [B, h, w, E]."""
    kernel = kernel.astype(x.dtype)
    if kernel.shape[:2] == (1, 1):
        return jnp.tensordot(x, kernel[0, 0], axes=1)
    return _convolve_on_cpu(x, kernel) if folds() else _convolve(x, kernel)


def _convolve(x: Array, kernel: Array) -> Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


# XLA computes the gradient of the kernel as a convolution with a kernel as large as the map, which on CPUs takes four
# times as long as these products.
_convolve_on_cpu = jax.custom_vjp(_convolve)

_BAND_PLACES = 1024  # places of a product: its operands stay in the cache of a core


def _convolve_gradient(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    (g_x,) = jax.vjp(lambda x: _convolve(x, kernel), x)[1](g)
    return g_x, _kernel_gradient(x, g, (kernel.shape[0], kernel.shape[1]))


def _kernel_gradient(x: Array, g: Array, size: tuple[int, int]) -> Array:
    """x: [B, h, w, C], g: [B, h, w, E] -> [*size, C, E], summed over bands of rows: of each one product of the inputs
    with the output gradients that every kernel element meets, side by side.
    """
    (rows, columns), (batch, height, width, channels) = size, x.shape
    padded = jnp.pad(g, ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0)))
    starts = [(i, j) for i in reversed(range(rows)) for j in reversed(range(columns))]

    def product(top: Array | int, taken: int) -> Array:
        """Of the rows from `top`, [C, rows columns E]."""
        inputs = jax.lax.dynamic_slice_in_dim(x, top, taken, axis=1).reshape(-1, channels)
        near = jax.lax.dynamic_slice_in_dim(padded, top, taken + rows - 1, axis=1)
        met = jnp.concatenate([near[:, i : i + taken, j : j + width] for i, j in starts], axis=-1)
        return jnp.matmul(inputs.T, met.reshape(len(inputs), -1), preferred_element_type=wide_type(x))

    # Over a batch that is split over devices every band would be a sum over all of them.
    split = axes.mesh_size("replica") * axes.mesh_size("fsdp") > 1
    band = height if split else min(max(_BAND_PLACES // (batch * width), 1), height)
    bands, rest = divmod(height, band)
    of_rest = product(bands * band, rest) if rest else 0
    total = jax.lax.fori_loop(1, bands, lambda i, total: total + product(i * band, band), product(0, band) + of_rest)
    return jnp.moveaxis(total.reshape(channels, rows, columns, -1), 0, 2).astype(x.dtype)


_convolve_on_cpu.defvjp(lambda x, kernel: (_convolve(x, kernel), (x, kernel)), _convolve_gradient)


def double(x: Array, kernel: Array, bias: Array) -> Array:
    """The transposed convolution of stride 2 with a 2 x 2 kernel: every place becomes a square of four.

    kernel: [2, 2, C, E] -> [B, 2h, 2w, E].
    """
    batch, height, width, _ = x.shape
    y = jnp.einsum("BHWI,VUIO->BHVWUO", x, kernel.astype(x.dtype)) + bias.astype(x.dtype)
    return y.reshape(batch, 2 * height, 2 * width, -1)


def halve(x: Array) -> Array:
    """The maximum of every square of four; an odd last row or column is dropped. -> [B, h // 2, w // 2, C].

    Chosen by comparisons: the gradient of JAX's maximum looks for the largest value again, and is NaN where a compiler
    has computed that a second time, rounded otherwise.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = _larger(x[:, 0:height:2], x[:, 1:height:2])
    return _larger(x[:, :, 0:width:2], x[:, :, 1:width:2])


def _larger(one: Array, other: Array) -> Array:
    return jnp.where(other > one, other, one)


def resize(x: Array, size: tuple[int, ...]) -> Array:
    """Bilinear resizing, pixels as squares (torch: align_corners=False), without antialiasing. -> [B, *size, C].

    size: rows and columns; a map of that size is returned unchanged.
    """
    if x.shape[1:3] == size:
        return x
    return _separable(x, bilinear_weights(x.shape[1], size[0]), bilinear_weights(x.shape[2], size[1]))


def pool(x: Array, bins: int) -> Array:
    """Means over bins x bins rectangles that cover the map; see `pooling_weights`. -> [B, bins, bins, C]."""
    return _separable(x, pooling_weights(x.shape[1], bins), pooling_weights(x.shape[2], bins))


def bilinear_weights(old: int, new: int) -> np.ndarray:
    """Weights of the old samples in each new one, [new, old]."""
    places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.floor(places).astype(int)
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new), low), 1 - (places - low))
    np.add.at(weights, (np.arange(new), np.minimum(low + 1, old - 1)), places - low)
    return weights


def pooling_weights(size: int, bins: int) -> np.ndarray:
    """Means over bins from floor(i size / bins) to ceil((i + 1) size / bins), which overlap if bins do not divide
    the size, as in torch's adaptive average pooling. [bins, size].
    """
    starts, ends = np.arange(bins) * size // bins, -(-np.arange(1, bins + 1) * size // bins)
    inside = (np.arange(size) >= starts[:, None]) & (np.arange(size) < ends[:, None])
    return inside / inside.sum(1, keepdims=True)


def _separable(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """Exact in the dtype of x: a TPU would otherwise round float32 to bfloat16."""
    exact = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ih,bhwc->biwc", jnp.asarray(rows, x.dtype), x, precision=exact)
    return jnp.einsum("jw,biwc->bijc", jnp.asarray(columns, x.dtype), x, precision=exact)
