"""What a block is made of, with the gradients written out.

Each saves the least it can recompute from, where automatic differentiation would save every intermediate: a step
on few tokens is bound by memory traffic, and what a scan over layers saves is written and read once per layer.
Everything but the matrix products is float32, whatever the type of the arguments; only float64 stays what it is.
"""

import functools
import math

import jax
import jax.numpy as jnp

from scaling import axes

Array = jax.Array


def dense(x: Array, kernel: Array, bias: Array) -> Array:
    """A matrix product with bias over named axes.

    The axes are folded into one row and one column axis for the product itself: on CPUs XLA copies operands with
    several contracted axes. Where a tensor-parallel mesh splits one of them they stay apart, since a fused axis could
    not be sharded.

    Args:
      x: [X, *inputs], X rows.
      kernel: [*inputs, *outputs], in the type of x.
      bias: [*outputs].

    Returns:
      [X, *outputs].
    """
    if axes.mesh_size("tensor") > 1:
        return _dense(x, kernel, bias)
    rows, outputs = x.shape[0], bias.shape
    out = _dense(x.reshape(rows, -1), kernel.reshape(x.size // rows, -1), bias.reshape(-1))
    return out.reshape(rows, *outputs)


def _affine(x: Array, kernel: Array, bias: Array) -> Array:
    return jnp.tensordot(x, kernel, axes=x.ndim - 1) + bias


_dense = jax.custom_vjp(_affine)


def _dense_gradient(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array, Array]:
    """The gradient of the kernel in the order of the kernel's own axes: nothing downstream needs a transposed copy."""
    x, kernel = saved
    outputs = (tuple(range(1, g.ndim)), tuple(range(x.ndim - 1, kernel.ndim)))
    g_x = jax.lax.dot_general(g, kernel, (outputs, ((), ())))
    g_kernel = jax.lax.dot_general(x, g, (((0,), (0,)), ((), ())))
    return g_x, g_kernel, g.sum(0)


# The forward rule has the product itself: a policy of rematerialisation does not see into a call of `_dense`.
_dense.defvjp(lambda x, kernel, bias: (_affine(x, kernel, bias), (x, kernel)), _dense_gradient)


@jax.custom_vjp
def unstack(x: Array) -> tuple[Array, ...]:
    """The parts of the first axis. Their gradients are written side by side, not padded and added."""
    return tuple(x[i] for i in range(x.shape[0]))


unstack.defvjp(lambda x: (unstack(x), None), lambda _, g: (jnp.stack(g),))


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
    """softmax(q kᵀ) v; the scale is already in the query. All [B, R, N, T, H] -> [B, R, N, T, H].

    The leading axes are folded into one, unless a tensor-parallel mesh splits branches or heads; see `dense`.
    """
    if axes.mesh_size("tensor") > 1:
        return _attend(query, key, value)
    shape = query.shape
    folded = (x.reshape(-1, *shape[-2:]) for x in (query, key, value))
    return _attend(*folded).reshape(shape)


def attend_biased(query: Array, key: Array, value: Array, bias: Array) -> Array:
    """The same with something added to the logits, [N, T, T]; its gradient is left to JAX."""
    logits = jnp.einsum("...TH,...UH->...TU", query, key, preferred_element_type=_wide_type(query)) + bias
    return jnp.einsum("...TU,...UH->...TH", jax.nn.softmax(logits).astype(value.dtype), value)


@jax.custom_vjp
def _attend(query: Array, key: Array, value: Array) -> Array:
    """Without gradients: the weights are divided by their sum after the mixing, H numbers a token instead of T. The
    softmax is half of the time of attention on a CPU, and most of it where the heads are narrow.
    """
    logits = jnp.einsum("...TH,...UH->...TU", query, key, preferred_element_type=_wide_type(query))
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    total = weights.sum(-1, keepdims=True)
    mixed = jnp.einsum(
        "...TU,...UH->...TH", weights.astype(value.dtype), value, preferred_element_type=_wide_type(query)
    )
    return (mixed / total).astype(value.dtype)


def _attend_forward(query: Array, key: Array, value: Array) -> tuple[Array, tuple[Array, ...]]:
    logits = jnp.einsum("...TH,...UH->...TU", query, key, preferred_element_type=_wide_type(query))
    weights = jax.nn.softmax(logits).astype(value.dtype)
    return jnp.einsum("...TU,...UH->...TH", weights, value), (query, key, value, weights)


def _attend_gradient(saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    query, key, value, weights = saved
    g_value = jnp.einsum("...TU,...TH->...UH", weights, g)
    g_weights = jnp.einsum("...TH,...UH->...TU", g, value, preferred_element_type=_wide_type(query))
    w = _wide(weights)
    g_logits = (w * (g_weights - (w * g_weights).sum(-1, keepdims=True))).astype(query.dtype)
    g_query = jnp.einsum("...TU,...UH->...TH", g_logits, key)
    g_key = jnp.einsum("...TU,...TH->...UH", g_logits, query)
    return g_query, g_key, g_value


_attend.defvjp(_attend_forward, _attend_gradient)
