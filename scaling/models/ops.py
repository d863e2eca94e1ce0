"""The operations of a block, with hand-written gradients.

Each saves only what its backward pass cannot recompute, whereas automatic differentiation would save every
intermediate: a step on few tokens is bound by memory traffic, and values saved by a scan over layers are written and
read once per layer. Everything but the matrix products is float32, whatever the dtype of the arguments, except float64.
"""

import functools
import math

import jax
import jax.numpy as jnp

from scaling import axes

Array = jax.Array


def folds() -> bool:
    """Whether batch and tokens, and the axes of a kernel, are folded into one before a product.

    The mathematics is the same; only the copies differ. On CPUs XLA runs one large product faster than many small ones,
    and copies operands with several contracted axes. TPUs tile the last two axes of an array by 8 x 128: 50, 196 and
    197 tokens are not multiples of 8, so folding them with the batch moves every number, as does moving heads before
    tokens.
    """
    return axes.platform() == "cpu"


def dense(x: Array, kernel: Array, bias: Array) -> Array:
    """A matrix product with bias over named axes.

    If a tensor-parallel mesh splits an axis of the kernel, axes are not folded on any backend: a fused axis could not
    be sharded.

    Args:
      x: [*rows, *inputs].
      kernel: [*inputs, *outputs], in the type of x.
      bias: [*outputs].

    Returns:
      [*rows, *outputs].
    """
    if not folds():
        return _dense(x, kernel, bias)
    inputs = kernel.ndim - bias.ndim
    rows, sizes = x.shape[:-inputs], x.shape[-inputs:]
    if axes.mesh_size("tensor") > 1:
        out = _dense(x.reshape(-1, *sizes), kernel, bias)
    else:
        out = _dense(x.reshape(-1, math.prod(sizes)), kernel.reshape(math.prod(sizes), -1), bias.reshape(-1))
    return out.reshape(*rows, *bias.shape)


def dense_parts(x: Array, kernel: Array, bias: Array, axis: int) -> tuple[Array, ...]:
    """The parts of `dense` along one output axis, counted in the bias: one product that is split, or, if nothing is
    folded, one product for each part.
    """
    if folds():
        out = dense(x, kernel, bias)
        return tuple(jax.lax.index_in_dim(out, i, axis - bias.ndim, keepdims=False) for i in range(bias.shape[axis]))
    before = kernel.ndim - bias.ndim + axis
    kernels, biases = jnp.moveaxis(kernel, before, 0), jnp.moveaxis(bias, axis, 0)
    return tuple(dense(x, *part) for part in zip(unstack(kernels), unstack(biases), strict=True))


def _affine(x: Array, kernel: Array, bias: Array) -> Array:
    return jnp.tensordot(x, kernel, axes=kernel.ndim - bias.ndim) + bias


_dense = jax.custom_vjp(_affine)


def _dense_gradient(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array, Array]:
    """The gradient of the kernel with the kernel's own order of axes: nothing downstream needs a transposed copy."""
    x, kernel = saved
    inputs = (x.ndim + kernel.ndim - g.ndim) // 2
    rows = tuple(range(x.ndim - inputs))
    outputs = (tuple(range(len(rows), g.ndim)), tuple(range(inputs, kernel.ndim)))
    g_x = jax.lax.dot_general(g, kernel, (outputs, ((), ())))
    g_kernel = jax.lax.dot_general(x, g, ((rows, rows), ((), ())))
    return g_x, g_kernel, g.sum(rows)


# The forward rule has the product itself: a policy of rematerialisation does not see into a call of `_dense`.
_dense.defvjp(lambda x, kernel, bias: (_affine(x, kernel, bias), (x, kernel)), _dense_gradient)


@jax.custom_vjp
def unstack(x: Array) -> tuple[Array, ...]:
    """The parts of the first axis. Their gradients are written side by side instead of padded and added."""
    return tuple(x[i] for i in range(x.shape[0]))


unstack.defvjp(lambda x: (unstack(x), None), lambda _, g: (jnp.stack(g),))


def wide(x: Array) -> Array:
    """x as float32, or as float64 if it is float64."""
    return x.astype(wide_type(x))


def wide_type(x: Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: Array, scale: Array, bias: Array, eps: float) -> Array:
    """LayerNorm over the last axis. x: [..., D], scale and bias: [D] -> [..., D] in the type of x."""
    return _layer_norm(x, scale, bias, eps)[0]


def _layer_norm(x: Array, scale: Array, bias: Array, eps: float) -> tuple[Array, tuple[Array, ...]]:
    y = wide(x)
    mean = y.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(y - mean).mean(-1, keepdims=True) + eps)
    return ((y - mean) * inverse * scale + bias).astype(x.dtype), (x, scale, mean, inverse)


def _layer_norm_gradient(eps: float, saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    del eps
    x, scale, mean, inverse = saved
    g = wide(g)
    normalized = (wide(x) - mean) * inverse
    g_scaled = g * scale
    along = (g_scaled * normalized).mean(-1, keepdims=True)
    g_x = inverse * (g_scaled - g_scaled.mean(-1, keepdims=True) - normalized * along)
    leading = tuple(range(x.ndim - 1))
    return g_x.astype(x.dtype), (g * normalized).sum(leading), g.sum(leading)


layer_norm.defvjp(_layer_norm, _layer_norm_gradient)


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """The exact GELU x Φ(x) (Hendrycks and Gimpel, 1606.08415), not its tanh approximation."""
    return (wide(x) * _normal_cdf(x)).astype(x.dtype)


def _normal_cdf(x: Array) -> Array:
    return 0.5 * (1 + jax.lax.erf(wide(x) * math.sqrt(0.5)))


def _gelu_gradient(x: Array, g: Array) -> tuple[Array]:
    y = wide(x)
    density = jnp.exp(-0.5 * jnp.square(y)) / math.sqrt(2 * math.pi)
    return ((wide(g) * (_normal_cdf(x) + y * density)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_gradient)
