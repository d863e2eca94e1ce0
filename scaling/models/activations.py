"""What happens inside a model on a batch of images: what the orderings and recoveries of `scaling.slimming` and the
coordinate check of a parametrization need.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from scaling import axes
from scaling.models.transformer import (
    SUBLAYERS,
    Groups,
    StackConfig,
    add_units,
    hidden_units,
    mix,
    norm,
    queries_keys_values,
    units,
)
from scaling.models.vit import ViTConfig, stem, take_tokens

_HEAD = ("layers", "branch", "heads", "head_dim")
_HIDDEN = ("layers", "branch", "mlp")
_EXACT = jax.lax.Precision.HIGHEST  # a TPU rounds float32 products to bfloat16; what is inverted cannot bear that

# The averages that `moments` returns, over the images and their tokens.
MOMENT_NAMES: dict[str, dict[str, axes.Names]] = {
    "query": {"square": (*_HEAD, "head_dim")},  # E[q qᵀ]
    "key": {"covariance": (*_HEAD, "head_dim")},  # within an image: what all of its keys share cancels in the softmax
    "mixed": {"mean": _HEAD, "square": (*_HEAD, "head_dim")},  # values averaged by attention
    "hidden": {"mean": _HIDDEN, "square": _HIDDEN},
    "attention_in": {"square": ("layers", "embed")},  # normalised tokens
    "mlp_in": {"square": ("layers", "embed")},
}


@functools.partial(jax.jit, static_argnums=2)
def moments(p: Any, images: jax.Array, c: ViTConfig) -> Any:
    """First and second moments of the units of every layer, float32; their axes are `MOMENT_NAMES`.

    p: of the encoder; images: [B, h, w, C], normalised.
    """

    def step(x: jax.Array, layer: Groups) -> tuple[jax.Array, Any]:
        y = norm(layer["attention_norm"], x, c.norm_eps)
        query, key, value = queries_keys_values(layer, y, c)
        mixed = mix(layer, query, key, value, c)  # [X, R, N, H]
        x = add_units(layer, x, mixed, c, "attention")
        z = norm(layer["mlp_norm"], x, c.norm_eps)
        hidden = hidden_units(layer, z, c)  # [X, R, F]
        key -= key.mean(3, keepdims=True)
        square = jnp.einsum("XRNH,XRNK->RNHK", mixed, mixed, precision=_EXACT) / len(mixed)
        measured = {
            "query": {"square": _token_square(query)},
            "key": {"covariance": _token_square(key)},
            "mixed": {"mean": mixed.mean(0), "square": square},
            "hidden": {"mean": hidden.mean(0), "square": jnp.square(hidden).mean(0)},
            "attention_in": {"square": jnp.square(y).mean((0, 1))},
            "mlp_in": {"square": jnp.square(z).mean((0, 1))},
        }
        return add_units(layer, x, hidden, c, "mlp"), measured

    return jax.lax.scan(step, stem(p, images, c), p["blocks"])[1]


def _token_square(x: jax.Array) -> jax.Array:
    """[B, R, N, T, H] -> [R, N, H, H]."""
    return jnp.einsum("BRNTH,BRNTK->RNHK", x, x, precision=_EXACT) / (x.shape[0] * x.shape[3])


@functools.partial(jax.jit, static_argnums=3)
def residual_streams(p: Any, images: jax.Array, tokens: jax.Array, c: ViTConfig) -> jax.Array:
    """Some tokens after every sublayer.

    p: of the encoder; images: [B, h, w, C], normalised; tokens: int [B, K] -> [2 L, B, K, D].
    """

    def step(x: jax.Array, layer: Groups) -> tuple[jax.Array, jax.Array]:
        after = []
        for sublayer in SUBLAYERS:
            x = add_units(layer, x, units(layer, x, c, sublayer), c, sublayer)
            after.append(take_tokens(x, tokens))
        return x, jnp.stack(after)

    after = jax.lax.scan(step, stem(p, images, c), p["blocks"])[1]  # [L, 2, B, K, D]
    return after.reshape(-1, *after.shape[2:])


def computed_sizes(blocks: Groups, x: jax.Array, c: StackConfig) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The tokens behind a stack; their mean size, and that of what each sublayer of each layer computed, [L]."""

    def step(x: jax.Array, layer: Groups) -> tuple[jax.Array, dict[str, jax.Array]]:
        sizes = {}
        for sublayer in SUBLAYERS:
            before, x = x, add_units(layer, x, units(layer, x, c, sublayer), c, sublayer)
            sizes[sublayer] = jnp.abs(x - before).mean() / c.residual_scale
        return x, sizes

    x, sizes = jax.lax.scan(step, x, blocks)
    return x, {"tokens": jnp.abs(x).mean()} | sizes
