"""Attention, in several implementations.

The softmax is float32 in all of them. `einsum` writes the logits to memory, [B, R, N, T, T]; fused kernels never do,
which pays if T is large: `auto` uses the TPU kernel from FUSED_FROM tokens on.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from scaling import axes
from scaling.core.errors import UserError
from scaling.models.config import LOG_SUM, StackConfig
from scaling.models.ops import folds, wide, wide_type

Array = jax.Array

FUSED_FROM = 2048  # tokens: from here on the float32 logits of one head fill the vector memory of a TPU core, 16 MiB
BLOCK, LONG_BLOCK = 128, 512  # tokens per block of the TPU kernel, for short and long sequences
FUSED = {"tpu": "fused", "gpu": "cudnn"}  # kernel by backend


def check(c: StackConfig, platform: str, dtype: str) -> None:
    """Raises UserError for an implementation that the training backend does not have, or not for these sizes and
    dtypes.
    """
    if c.attention in ("auto", "einsum"):
        return
    if c.half_logits:
        raise UserError(
            f"model.half_logits=True: only einsum keeps logits, {c.attention} does not; set model.attention=einsum"
        )
    if not _has(c.attention, platform, dtype, c.head_dim):
        raise UserError(
            f"model.attention={c.attention}: must be supported by the backend {platform} in {dtype} for "
            f"model.head_dim={c.head_dim}; set auto or einsum"
        )


def _has(kernel: str, platform: str, dtype: jnp.dtype | str, head_dim: int) -> bool:
    """Whether a kernel supports these arguments; NVIDIA's computes in two-byte dtypes only."""
    if kernel != FUSED.get(platform):
        return False
    if kernel == "fused":
        return head_dim <= 128 or head_dim % 128 == 0
    return head_dim <= 128 and head_dim % 8 == 0 and jnp.dtype(dtype).itemsize == 2


def program(attention: str, query: Array, half_logits: bool = False) -> str:
    """The implementation of attention for the platform being traced for.

    A kernel has to know how its arguments are sharded, so it is used only on the mesh of a training step
    (`jax.set_mesh`): a loaded encoder computes with `einsum`, and so do arguments that a kernel does not support.
    `auto` uses no kernel on GPUs, since its benefit there has not been measured.

    Args:
      attention, half_logits: the fields of `StackConfig`.
      query: [B, T, R, N, H].
    """
    if attention == "auto":
        long = query.shape[1] >= FUSED_FROM and axes.platform() == "tpu"
        attention = "fused" if long and not half_logits else "einsum"
    inside = not jax.sharding.get_abstract_mesh().empty
    return attention if inside and _has(attention, axes.platform(), query.dtype, query.shape[-1]) else "einsum"


def heads_first(x: Array) -> Array:
    """Queries, keys or values in the order of `attend` as [B, R, N, T, H]."""
    return x if folds() else jnp.moveaxis(x, 1, 3)


def attend(query: Array, key: Array, value: Array, attention: str = "auto", half_logits: bool = False) -> Array:
    """softmax(q kᵀ) v; the scale is already in the query.

    Args:
      query, key, value: [B, R, N, T, H] if axes are folded (see `folds`), else [B, T, R, N, H].
      attention, half_logits: the fields of `StackConfig`.

    Returns:
      [B, T, R, N, H].
    """
    if not folds():
        kernel = _KERNELS.get(program(attention, query, half_logits))
        return kernel(query, key, value) if kernel else _attend(query, key, value, "BTRNH", half_logits)
    if axes.mesh_size("tensor") > 1:  # the axis that splits branches or heads
        mixed = _attend(query, key, value, "BRNTH", half_logits)
    else:
        folded = (x.reshape(-1, *x.shape[-2:]) for x in (query, key, value))
        mixed = _attend(*folded, "BTH", half_logits).reshape(query.shape)
    return jnp.moveaxis(mixed, 3, 1)


def _fused(query: Array, key: Array, value: Array) -> Array:
    """JAX's TPU kernel, after Dao et al., 2205.14135, on each device for its own images and heads. Tokens are
    padded to whole blocks, and the padding is a segment of its own.
    """
    from jax.experimental.pallas.ops.tpu import flash_attention  # slow to import

    tokens = query.shape[1]
    block = LONG_BLOCK if tokens >= FUSED_FROM else BLOCK
    padding = -tokens % block
    length = tokens + padding

    def on_device(*arrays: Array) -> Array:
        padded = [jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0), (0, 0))) for x in arrays]
        local = padded[0].shape
        q, k, v = (x.reshape(local[0], length, -1, local[-1]).swapaxes(1, 2) for x in padded)  # [B, R N, T, H]
        segment = jnp.broadcast_to((jnp.arange(length) >= tokens).astype(jnp.int32), (local[0], length))
        mixed = flash_attention.flash_attention(
            q,
            k,
            v,
            segment_ids=flash_attention.SegmentIds(segment, segment) if padding else None,
            block_sizes=flash_attention.BlockSizes(block, block, block, 1, *[block] * 7),
        )
        return mixed.swapaxes(1, 2).reshape(local)[:, :tokens]

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size == 1:
        return on_device(query, key, value)
    parts = axes.partition(("batch", "tokens", "branch", "heads", "head_dim"), query.shape, mesh.shape)
    spec = PartitionSpec(*(part or None for part in parts))
    return jax.shard_map(on_device, in_specs=spec, out_specs=spec, check_vma=False)(query, key, value)


def _cudnn(query: Array, key: Array, value: Array) -> Array:
    """NVIDIA's kernel, called through JAX."""
    shape = query.shape
    q, k, v = (x.reshape(*shape[:2], -1, shape[-1]) for x in (query, key, value))
    return jax.nn.dot_product_attention(q, k, v, scale=1.0, implementation="cudnn").reshape(shape)


_KERNELS: dict[str, Callable[[Array, Array, Array], Array]] = {"fused": _fused, "cudnn": _cudnn}


def attend_biased(query: Array, key: Array, value: Array, bias: Array) -> Array:
    """`attend` with a bias added to the logits [B, R, N, T, T], such as [N, T, T]; its gradient is left to JAX."""
    query, key, value = (heads_first(x) for x in (query, key, value))
    logits = jnp.einsum("...TH,...UH->...TU", query, key, preferred_element_type=wide_type(query)) + bias
    mixed = jnp.einsum("...TU,...UH->...TH", jax.nn.softmax(logits).astype(value.dtype), value)
    return jnp.moveaxis(mixed, 3, 1)


class _Axes(NamedTuple):
    """The einsum letters of queries (and of the mixed values), of keys and values, and of the weights."""

    query: str
    key: str
    weights: str

    @classmethod
    def of(cls, order: str) -> "_Axes":
        leading = order.replace("T", "").replace("H", "")
        return cls(order, order.replace("T", "U"), leading + "TU")


def _logits(query: Array, key: Array, a: _Axes, half: bool) -> Array:
    kept = query.dtype if half else wide_type(query)
    return wide(jnp.einsum(f"{a.query},{a.key}->{a.weights}", query, key, preferred_element_type=kept))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _attend(query: Array, key: Array, value: Array, order: str, half: bool) -> Array:
    """Attention whose softmax is normalised after mixing: H divisions per token instead of T. The softmax takes half of
    the time of attention on a CPU, and most of it if heads are narrow.

    order: einsum letters of all arguments; half: whether the logits have the dtype of the arguments.
    """
    a = _Axes.of(order)
    logits = _logits(query, key, a, half)
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    total = jnp.einsum(f"{a.weights[:-1]}->{order.replace('H', '')}", weights.sum(-1))[..., None]
    mixed = jnp.einsum(
        f"{a.weights},{a.key}->{order}", weights.astype(value.dtype), value, preferred_element_type=wide_type(query)
    )
    return (mixed / total).astype(value.dtype)


def _attend_forward(
    query: Array, key: Array, value: Array, order: str, half: bool
) -> tuple[Array, tuple[Array | None, ...]]:
    a = _Axes.of(order)
    logits = _logits(query, key, a, half)
    if folds():
        weights = jax.nn.softmax(logits).astype(value.dtype)
    else:  # one number per row is saved if weights are recomputed: no pass over [T, T] for maximum and sum
        total = checkpoint_name(jax.nn.logsumexp(logits, axis=-1, keepdims=True), LOG_SUM)
        weights = jnp.exp(logits - total).astype(value.dtype)
    mixed = jnp.einsum(f"{a.weights},{a.key}->{order}", weights, value)
    return mixed, (query, key, value, weights, None if folds() else mixed)


def _attend_gradient(order: str, half: bool, saved: tuple[Array, ...], g: Array) -> tuple[Array, Array, Array]:
    query, key, value, weights, mixed = saved
    a = _Axes.of(order)
    g_value = jnp.einsum(f"{a.weights},{order}->{a.key}", weights, g)
    g_weights = _logits(g, value, a, half)
    w = wide(weights)
    if mixed is None:
        along = (w * g_weights).sum(-1)
    else:  # the same sum over H numbers per token instead of T (Dao, 2307.08691): one pass less over [T, T]
        along = jnp.einsum(f"{order},{order}->{a.weights[:-1]}", g, mixed, preferred_element_type=w.dtype)
    g_logits = (w * (g_weights - along[..., None])).astype(query.dtype)
    g_query = jnp.einsum(f"{a.weights},{a.key}->{order}", g_logits, key)
    g_key = jnp.einsum(f"{a.weights},{order}->{a.key}", g_logits, query)
    return g_query, g_key, g_value


_attend.defvjp(_attend_forward, _attend_gradient)
