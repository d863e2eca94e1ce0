"""The elementwise parts of a block with their gradients written out.

Each saves the least it can recompute from, where automatic differentiation would save every intermediate: a step
on few tokens is bound by memory traffic, and what a scan over layers saves is written and read once per layer.
Everything but the matrix products is float32, whatever the type of the arguments.
"""

import functools
import math

import jax
import jax.numpy as jnp

Array = jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: Array, scale: Array, bias: Array, eps: float) -> Array:
    """LayerNorm over the last axis. x: [..., D], scale and bias: [D] -> [..., D] in the type of x."""
    return _layer_norm(x, scale, bias, eps)[0]


def _layer_norm(x: Array, scale: Array, bias: Array, eps: float) -> tuple[Array, tuple[Array, ...]]:
    y = x.astype(jnp.float32)
    mean = y.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(y - mean).mean(-1, keepdims=True) + eps)
    return ((y - mean) * inverse * scale + bias).astype(x.dtype), (x, scale, mean, inverse)


def _layer_norm_gradient(eps: float, saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    del eps
    x, scale, mean, inverse = saved
    g = g.astype(jnp.float32)
    normalized = (x.astype(jnp.float32) - mean) * inverse
    g_scaled = g * scale
    along = (g_scaled * normalized).mean(-1, keepdims=True)
    g_x = inverse * (g_scaled - g_scaled.mean(-1, keepdims=True) - normalized * along)
    leading = tuple(range(x.ndim - 1))
    return g_x.astype(x.dtype), (g * normalized).sum(leading), g.sum(leading)


layer_norm.defvjp(_layer_norm, _layer_norm_gradient)


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """The exact GELU x Φ(x) (Hendrycks and Gimpel, 1606.08415), not its tanh approximation."""
    return (x.astype(jnp.float32) * _normal_cdf(x)).astype(x.dtype)


def _normal_cdf(x: Array) -> Array:
    return 0.5 * (1 + jax.lax.erf(x.astype(jnp.float32) * math.sqrt(0.5)))


def _gelu_gradient(x: Array, g: Array) -> tuple[Array]:
    y = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(y)) / math.sqrt(2 * math.pi)
    return ((g.astype(jnp.float32) * (_normal_cdf(x) + y * density)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_gradient)


@jax.custom_vjp
def attend(query: Array, key: Array, value: Array) -> Array:
    """softmax(q kᵀ) v over the last two axes; the scale is already in the query. All [..., T, H] -> [..., T, H]."""
    return _attend(query, key, value)[0]


def _attend(query: Array, key: Array, value: Array) -> tuple[Array, tuple[Array, ...]]:
    logits = jnp.einsum("...TH,...UH->...TU", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits).astype(value.dtype)
    out = jnp.einsum("...TU,...UH->...TH", weights, value)
    return out, (query, key, value, weights, out)


def _attend_gradient(saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    query, key, value, weights, out = saved
    g_value = jnp.einsum("...TU,...TH->...UH", weights, g)
    g_weights = jnp.einsum("...TH,...UH->...TU", g, value, preferred_element_type=jnp.float32)
    # the softmax gradient subtracts sum_u w_u dw_u, which equals the inner product of the output and its gradient
    inner = (g.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)
    g_logits = (weights.astype(jnp.float32) * (g_weights - inner)).astype(query.dtype)
    g_query = jnp.einsum("...TU,...UH->...TH", g_logits, key)
    g_key = jnp.einsum("...TU,...TH->...UH", g_logits, query)
    return g_query, g_key, g_value


attend.defvjp(_attend, _attend_gradient)
