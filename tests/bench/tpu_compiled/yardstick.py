"""A plain ViT-L/16 in the usual style, that of google-research/big_vision (`models/vit.py`): flax modules on tokens
[B, T, D], a scan over blocks whose matrix products are saved, sin-cos positions, the mean over the patches, softmax
cross-entropy, AdamW. It imports nothing of `scaling`, so that it never changes.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """Attributes:
    exact_gelu: x Φ(x); else the approximation by tanh.
    float32_softmax: attention softmax and logits in float32; else in bfloat16.
    erf: Φ by erf; else by erfc, as flax has it, which takes more instructions.
    """

    exact_gelu: bool
    float32_softmax: bool
    erf: bool = False
    width: int = 1024
    depth: int = 24
    heads: int = 16
    mlp: int = 4096
    patch_size: int = 16
    image_size: int = 224
    classes: int = 1000


def positions(side: int, width: int) -> np.ndarray:
    """Sine and cosine of both coordinates, a quarter of the width each (MoCo v3). [side * side, width]."""
    rows, columns = np.indices((side, side)).reshape(2, -1, 1)
    rate = 10_000.0 ** -(np.arange(width // 4) / (width // 4 - 1))
    return np.concatenate([wave(x * rate) for x in (columns, rows) for wave in (np.sin, np.cos)], axis=1)


class Block(nn.Module):
    """Attention and MLP, pre-norm; the body of the scan."""

    config: Yardstick

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        c, dtype = self.config, x.dtype
        dense = functools.partial(nn.Dense, dtype=dtype, kernel_init=nn.initializers.xavier_uniform())
        attention = nn.MultiHeadDotProductAttention(
            c.heads,
            dtype=dtype,
            kernel_init=nn.initializers.xavier_uniform(),
            force_fp32_for_softmax=c.float32_softmax,
        )
        y = nn.LayerNorm()(x)
        x = x + attention(y, y)
        y = dense(c.mlp)(nn.LayerNorm()(x))
        if c.exact_gelu and c.erf:
            y = 0.5 * y * (1 + jax.lax.erf(y * np.sqrt(0.5).astype(dtype)))
        else:
            y = nn.gelu(y, approximate=not c.exact_gelu)
        return x + dense(c.width)(y), None


def stack(c: Yardstick, x: jax.Array) -> jax.Array:
    """All blocks, inside a compact module. x: [B, T, D] -> [B, T, D]."""
    body = nn.remat(Block, policy=jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims, prevent_cse=False)
    blocks = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=c.depth)
    tokens: jax.Array = blocks(c)(x, None)[0]
    return tokens


class ViT(nn.Module):
    """Images [B, h, w, 3] in bfloat16 -> logits [B, K] in float32."""

    config: Yardstick

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        c, patch = self.config, (self.config.patch_size,) * 2
        x = nn.Conv(c.width, patch, strides=patch, padding="VALID", dtype=images.dtype)(images)
        x = x.reshape(len(x), -1, c.width)
        x = x + positions(c.image_size // c.patch_size, c.width).astype(x.dtype)
        x = nn.LayerNorm()(stack(c, x))
        return nn.Dense(c.classes, kernel_init=nn.initializers.zeros)(x.mean(1))


def lowered(c: Yardstick, batch_size: int, device: jax.Device) -> jax.stages.Lowered:
    """One training step on images of one byte a channel, to be compiled for a device; the state is donated."""
    model = ViT(c)
    warmup, steps = 100, 1000
    rate = optax.warmup_cosine_decay_schedule(0.0, 4e-5, warmup, steps)
    optimizer = optax.chain(
        optax.scale_by_adam(0.9, 0.95, mu_dtype=jnp.float32),
        optax.add_decayed_weights(0.05, mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params)),
        optax.scale_by_learning_rate(rate),
    )

    def create() -> tuple[Any, Any]:
        params = model.init(jax.random.key(0), jnp.zeros((1, c.image_size, c.image_size, 3), jnp.bfloat16))["params"]
        return params, optimizer.init(params)

    def loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = model.apply({"params": params}, (images / 127.5 - 1).astype(jnp.bfloat16))
        return optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, c.classes)).mean()

    def step(state: tuple[Any, Any], images: jax.Array, labels: jax.Array) -> tuple[tuple[Any, Any], Any]:
        params, moments = state
        value, gradients = jax.value_and_grad(loss)(params, images, labels)
        updates, moments = optimizer.update(gradients, moments, params)
        params = optax.apply_updates(params, updates)
        norms = {"grad_norm": optax.global_norm(gradients), "param_norm": optax.global_norm(params)}
        return (params, moments), {"loss": value, **norms}

    here = jax.sharding.SingleDeviceSharding(device)
    images = jax.ShapeDtypeStruct((batch_size, c.image_size, c.image_size, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    jitted = jax.jit(step, donate_argnums=0, in_shardings=here, out_shardings=here)
    return jitted.lower(jax.eval_shape(create), images, labels)
