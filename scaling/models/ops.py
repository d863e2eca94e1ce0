"""What a block is made of, with the gradients written out.

Each saves the least it can recompute from, where automatic differentiation would save every intermediate: a step
on few tokens is bound by memory traffic, and what a scan over layers saves is written and read once per layer.
Everything but the matrix products is float32, whatever the type of the arguments; only float64 stays what it is.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from scaling import axes

Array = jax.Array


def folds() -> bool:
    """Whether batch and tokens, and the axes of a kernel, are folded into one before a product.

    The mathematics is the same; what differs is what has to be copied. On CPUs XLA runs one large product faster than
    many small ones, and copies operands with several contracted axes. TPUs tile the last two axes of an array by
    8 x 128: 50, 196 or 197 tokens are no multiple of 8, so that folding them with the batch moves every number, and so
    does moving heads in front of tokens.
    """
    return axes.platform() == "cpu"


def dense(x: Array, kernel: Array, bias: Array) -> Array:
    """A matrix product with bias over named axes.

    Where a tensor-parallel mesh splits an axis of the kernel, these stay apart on every backend: a fused axis could not
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
    """The parts of `dense` along one output axis, counted in the bias: one product that is taken apart, or, where
    nothing is folded, one product for each.
    """
    if folds():
        return unstack(dense(x, kernel, bias), axis - bias.ndim)
    before = kernel.ndim - bias.ndim + axis
    parts = zip(unstack(kernel, before), unstack(bias, axis), strict=True)
    return tuple(dense(x, *part) for part in parts)


def _affine(x: Array, kernel: Array, bias: Array) -> Array:
    return jnp.tensordot(x, kernel, axes=kernel.ndim - bias.ndim) + bias


_dense = jax.custom_vjp(_affine)


def _dense_gradient(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array, Array]:
    """The gradient of the kernel in the order of the kernel's own axes: nothing downstream needs a transposed copy."""
    x, kernel = saved
    inputs = (x.ndim + kernel.ndim - g.ndim) // 2
    rows = tuple(range(x.ndim - inputs))
    outputs = (tuple(range(len(rows), g.ndim)), tuple(range(inputs, kernel.ndim)))
    g_x = jax.lax.dot_general(g, kernel, (outputs, ((), ())))
    g_kernel = jax.lax.dot_general(x, g, ((rows, rows), ((), ())))
    return g_x, g_kernel, g.sum(rows)


# The forward rule has the product itself: a policy of rematerialisation does not see into a call of `_dense`.
_dense.defvjp(lambda x, kernel, bias: (_affine(x, kernel, bias), (x, kernel)), _dense_gradient)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def unstack(x: Array, axis: int) -> tuple[Array, ...]:
    """The parts of an axis. Their gradients are written side by side, not padded and added."""
    return tuple(jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in range(x.shape[axis]))


unstack.defvjp(lambda x, axis: (unstack(x, axis), None), lambda axis, _, g: (jnp.stack(g, axis),))


def _wide(x: Array) -> Array:
    return x.astype(_wide_type(x))


def _wide_type(x: Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: Array, scale: Array, bias: Array, eps: float) -> Array:
    """LayerNorm over the last axis. x: [..., D], scale and bias: [D] -> [..., D] in the type of x."""
    return _layer_norm(x, scale, bias, eps)[0]


def _layer_norm(x: Array, scale: Array, bias: Array, eps: float) -> tuple[Array, tuple[Array, ...]]:
    y = _wide(x)
    mean = y.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(y - mean).mean(-1, keepdims=True) + eps)
    return ((y - mean) * inverse * scale + bias).astype(x.dtype), (x, scale, mean, inverse)


def _layer_norm_gradient(eps: float, saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    del eps
    x, scale, mean, inverse = saved
    g = _wide(g)
    normalized = (_wide(x) - mean) * inverse
    g_scaled = g * scale
    along = (g_scaled * normalized).mean(-1, keepdims=True)
    g_x = inverse * (g_scaled - g_scaled.mean(-1, keepdims=True) - normalized * along)
    leading = tuple(range(x.ndim - 1))
    return g_x.astype(x.dtype), (g * normalized).sum(leading), g.sum(leading)


layer_norm.defvjp(_layer_norm, _layer_norm_gradient)


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """The exact GELU x Φ(x) (Hendrycks and Gimpel, 1606.08415), not its tanh approximation."""
    return (_wide(x) * _normal_cdf(x)).astype(x.dtype)


def _normal_cdf(x: Array) -> Array:
    return 0.5 * (1 + jax.lax.erf(_wide(x) * math.sqrt(0.5)))


def _gelu_gradient(x: Array, g: Array) -> tuple[Array]:
    y = _wide(x)
    density = jnp.exp(-0.5 * jnp.square(y)) / math.sqrt(2 * math.pi)
    return ((_wide(g) * (_normal_cdf(x) + y * density)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_gradient)


def attend(query: Array, key: Array, value: Array) -> Array:
    """softmax(q kᵀ) v; the scale is already in the query. All [B, T, R, N, H] -> [B, T, R, N, H].

    Where axes are folded, heads come before tokens and the leading axes become one, unless a tensor-parallel mesh
    splits branches or heads; see `folds` and `dense`.
    """
    if not folds():
        return _attend(query, key, value, "BTRNH")
    query, key, value = (jnp.moveaxis(x, 1, 3) for x in (query, key, value))  # [B, R, N, T, H]
    if axes.mesh_size("tensor") > 1:
        mixed = _attend(query, key, value, "BRNTH")
    else:
        folded = (x.reshape(-1, *x.shape[-2:]) for x in (query, key, value))
        mixed = _attend(*folded, "BTH").reshape(query.shape)
    return jnp.moveaxis(mixed, 3, 1)


def attend_biased(query: Array, key: Array, value: Array, bias: Array) -> Array:
    """The same with something added to the logits, [N, T, T]; its gradient is left to JAX."""
    logits = jnp.einsum("BTRNH,BURNH->BRNTU", query, key, preferred_element_type=_wide_type(query)) + bias
    return jnp.einsum("BRNTU,BURNH->BTRNH", jax.nn.softmax(logits).astype(value.dtype), value)


class _Axes(NamedTuple):
    """The letters of queries (and of what is mixed), of keys and values, and of the weights."""

    query: str
    key: str
    weights: str

    @classmethod
    def of(cls, order: str) -> "_Axes":
        leading = order.replace("T", "").replace("H", "")
        return cls(order, order.replace("T", "U"), leading + "TU")


def _logits(query: Array, key: Array, a: _Axes) -> Array:
    return jnp.einsum(f"{a.query},{a.key}->{a.weights}", query, key, preferred_element_type=_wide_type(query))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(query: Array, key: Array, value: Array, order: str) -> Array:
    """Without gradients: the weights are divided by their sum after the mixing, H numbers a token instead of T. The
    softmax is half of the time of attention on a CPU, and most of it where the heads are narrow.

    order: the letters of all arguments.
    """
    a = _Axes.of(order)
    logits = _logits(query, key, a)
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    total = jnp.einsum(f"{a.weights[:-1]}->{order.replace('H', '')}", weights.sum(-1))[..., None]
    mixed = jnp.einsum(
        f"{a.weights},{a.key}->{order}", weights.astype(value.dtype), value, preferred_element_type=_wide_type(query)
    )
    return (mixed / total).astype(value.dtype)


def _attend_forward(query: Array, key: Array, value: Array, order: str) -> tuple[Array, tuple[Array, ...]]:
    a = _Axes.of(order)
    weights = jax.nn.softmax(_logits(query, key, a)).astype(value.dtype)
    mixed = jnp.einsum(f"{a.weights},{a.key}->{order}", weights, value)
    return mixed, (query, key, value, weights, None if folds() else mixed)


def _attend_gradient(order: str, saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    query, key, value, weights, mixed = saved
    a = _Axes.of(order)
    g_value = jnp.einsum(f"{a.weights},{order}->{a.key}", weights, g)
    g_weights = _logits(g, value, a)
    w = _wide(weights)
    if mixed is None:
        along = (w * g_weights).sum(-1)
    else:  # the same sum over H numbers a token instead of T (Dao, 2307.08691): one pass less over [T, T]
        along = jnp.einsum(f"{order},{order}->{a.weights[:-1]}", g, mixed, preferred_element_type=w.dtype)
    g_logits = (w * (g_weights - along[..., None])).astype(query.dtype)
    g_query = jnp.einsum(f"{a.weights},{a.key}->{order}", g_logits, key)
    g_key = jnp.einsum(f"{a.weights},{order}->{a.key}", g_logits, query)
    return g_query, g_key, g_value


_attend.defvjp(_attend_forward, _attend_gradient)
