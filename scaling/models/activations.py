"""Activations of a model on a batch of images, for the orderings and recoveries of `scaling.slimming` and the
coordinate check of a parametrization.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from scaling import axes
from scaling.core.errors import UserError
from scaling.models.config import StackConfig, ViTConfig
from scaling.models.transformer import Groups, Passed, run
from scaling.models.vit import behind_blocks, stem, take_tokens

_HEAD = ("layers", "branch", "heads", "head_dim")
_HIDDEN = ("layers", "branch", "mlp")
_EXACT = jax.lax.Precision.HIGHEST  # a TPU rounds float32 products to bfloat16; what is inverted cannot bear that

# Averages that `moments` returns, over images and tokens.
MOMENT_NAMES: dict[str, dict[str, axes.Names]] = {
    "query": {"square": (*_HEAD, "head_dim")},  # E[q qᵀ]
    "key": {
        "covariance": (*_HEAD, "head_dim")
    },  # within an image: the part common to all its keys cancels in the softmax
    "mixed": {"mean": _HEAD, "square": (*_HEAD, "head_dim")},  # values averaged by attention
    "hidden": {"mean": _HIDDEN, "square": _HIDDEN},
    "attention_in": {"square": ("layers", "embed")},  # normalised tokens
    "mlp_in": {"square": ("layers", "embed")},
}


@functools.partial(jax.jit, static_argnums=2)
def moments(p: Any, images: jax.Array, c: ViTConfig) -> Any:
    """First and second moments of the units of every layer, float32; their axes are `MOMENT_NAMES`.

    p: parameters of the encoder; images: [B, h, w, C], normalised.
    """

    def observe(passed: Mapping[str, Passed]) -> Any:
        attention, mlp = passed["attention"], passed["mlp"]
        mixed, hidden = (s.units.reshape(-1, *s.units.shape[2:]) for s in (attention, mlp))  # [X, R, N, H], [X, R, F]
        hidden = jax.lax.optimization_barrier(hidden)  # summed in folded form, which keeps the last bits of old rows
        assert attention.query is not None
        assert attention.key is not None
        key = attention.key - attention.key.mean(3, keepdims=True)
        square = jnp.einsum("XRNH,XRNK->RNHK", mixed, mixed, precision=_EXACT) / len(mixed)
        return {
            "query": {"square": _token_square(attention.query)},
            "key": {"covariance": _token_square(key)},
            "mixed": {"mean": mixed.mean(0), "square": square},
            "hidden": {"mean": hidden.mean(0), "square": jnp.square(hidden).mean(0)},
            "attention_in": {"square": jnp.square(attention.normalised).mean((0, 1))},
            "mlp_in": {"square": jnp.square(mlp.normalised).mean((0, 1))},
        }

    return run(p["blocks"], stem(p, images, c), c, observe)[1]


def _token_square(x: jax.Array) -> jax.Array:
    """[B, R, N, T, H] -> [R, N, H, H]."""
    return jnp.einsum("BRNTH,BRNTK->RNHK", x, x, precision=_EXACT) / (x.shape[0] * x.shape[3])


@functools.partial(jax.jit, static_argnums=3)
def residual_streams(p: Any, images: jax.Array, tokens: jax.Array, c: ViTConfig) -> jax.Array:
    """Some tokens after every sublayer.

    p: parameters of the encoder; images: [B, h, w, C], normalised; tokens: int [B, K] -> [2 L, B, K, D].
    """

    def observe(passed: Mapping[str, Passed]) -> jax.Array:
        return jnp.stack([take_tokens(sublayer.after, tokens) for sublayer in passed.values()])

    after = run(p["blocks"], stem(p, images, c), c, observe)[1]  # [L, 2, B, K, D]
    return after.reshape(-1, *after.shape[2:])


@functools.partial(jax.jit, static_argnums=(2, 3))
def layer_tokens(p: Any, images: jax.Array, c: ViTConfig, layers: tuple[int, ...]) -> jax.Array:
    """All tokens after selected layers, before the final norm.

    Args:
      p: parameters of the encoder.
      images: [B, h, w, C], normalised.
      layers: layers from 1 to `depth`; 0 is the input of the first block.

    Returns:
      [K, B, T, D].

    Raises:
      UserError: a layer that the encoder does not have.
    """
    if wrong := [layer for layer in layers if not 0 <= layer <= c.depth]:
        raise UserError(
            f"layers={wrong[0]}: must be from 0, the input of the first block, to {c.depth}, the output of the last"
        )
    x = stem(p, images, c)
    after = run(p["blocks"], x, c, behind_blocks)[1]
    return jnp.concatenate([x[None], after])[jnp.asarray(layers)]


def computed_sizes(blocks: Groups, x: jax.Array, c: StackConfig) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The tokens after a stack; their mean absolute value, and that of each sublayer's output in each layer, [L]."""

    def observe(passed: Mapping[str, Passed]) -> dict[str, jax.Array]:
        return {name: jnp.abs(s.after - s.before).mean() / c.residual_scale for name, s in passed.items()}

    x, sizes = run(blocks, x, c, observe)
    return x, {"tokens": jnp.abs(x).mean()} | sizes
