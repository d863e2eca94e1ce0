"""Masked autoencoder (He et al., 2111.06377): encode a quarter of the patches, reconstruct the pixels of the others.

The decoder sees its tokens in the order visible, masked instead of unshuffling them. Blocks are permutation-equivariant
and every token carries its position, so the result is the same, and there is no scatter in the backward pass; the
masked tokens end up contiguous, so that only they go through the last layer.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling.core.errors import UserError
from scaling.models import parameters
from scaling.models.activations import computed_sizes
from scaling.models.config import StackConfig, ViTConfig
from scaling.models.ops import wide
from scaling.models.parameters import Parameters
from scaling.models.positions import sincos_2d
from scaling.models.transformer import Groups, norm, project, stack
from scaling.models.vit import ViT, image_input, patchify, stem, take_tokens


@dataclasses.dataclass(frozen=True)
class Masking:
    """The decoder, and the patches it reconstructs.

    Attributes:
      decoder_width, decoder_depth, decoder_heads: sizes of the decoder.
      decoder_head_dim, decoder_mlp: sizes of a cut decoder; 0 means decoder_width / decoder_heads, and four times
        decoder_width.
      decoder_attention_scale, decoder_residual_scale: the decoder's `attention_scale` and `residual_scale`.
      mask_ratio: fraction of the patches that is masked.
      normalize_targets: whether the target patches are normalised by their own mean and variance.
    """

    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    decoder_head_dim: int = 0
    decoder_mlp: int = 0
    decoder_attention_scale: float = 0.0
    decoder_residual_scale: float = 1.0
    mask_ratio: float = 0.75
    normalize_targets: bool = True


@dataclasses.dataclass(frozen=True)
class MAEConfig(Masking, ViTConfig):
    """An encoder with its decoder and masking."""

    @property
    def visible(self) -> int:
        """Number of patches that are encoded."""
        return int(self.patches * (1 - self.mask_ratio))

    @property
    def decoder(self) -> StackConfig:
        return StackConfig(
            width=self.decoder_width,
            depth=self.decoder_depth,
            heads=self.decoder_heads,
            head_dim=self.decoder_head_dim or self.decoder_width // max(self.decoder_heads, 1),
            mlp=self.decoder_mlp or 4 * self.decoder_width,
            attention_scale=self.decoder_attention_scale,
            residual_scale=self.decoder_residual_scale,
            attention=self.attention,
            half_logits=self.half_logits,
            norm_eps=self.norm_eps,
            remat=self.remat,
            unroll=self.unroll,
            network="decoder",
        )

    def check(self) -> None:
        super().check()
        self.check_pretraining()
        if self.window:
            raise UserError(f"model.window={self.window}: the visible patches form no windows; set it in fine-tuning")
        if not 1 <= self.visible < self.patches:
            raise UserError(
                f"objective.mask_ratio={self.mask_ratio} leaves {self.visible} of {self.patches} patches visible; "
                "at least one must be visible and one masked"
            )
        if self.decoder_heads < 1 or self.decoder_width % (4 * self.decoder_heads):
            raise UserError(
                f"objective.decoder_width={self.decoder_width}: must be a multiple of 4 times "
                f"objective.decoder_heads={self.decoder_heads}"
            )


def mask_noise(key: jax.Array, index: jax.Array, patches: int) -> jax.Array:
    """Uniform noise whose order decides which patches are masked.

    Every image has its own stream, a function of (key, index) alone, so masks do not depend on devices or hosts.

    Args:
      key: a key for the step.
      index: int [B], the images' global positions within the step.
      patches: number of patches T.

    Returns:
      float32 [B, T].
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
    return jax.vmap(lambda k: jax.random.uniform(k, (patches,)))(keys)


def patch_targets(patches: jax.Array, normalize: bool) -> jax.Array:
    """Reconstruction targets, float32. Normalisation uses the unbiased variance, as the reference does. [B, T, P]."""
    patches = patches.astype(jnp.float32)
    if not normalize:
        return patches
    mean = patches.mean(-1, keepdims=True)
    return (patches - mean) / jnp.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)


class MAE(nn.Module):
    """Encoder and decoder of one masked autoencoder; see `ViT` for `dtype`."""

    config: MAEConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, noise: jax.Array) -> dict[str, jax.Array]:
        """The objective and what it was computed from.

        Args:
          images: float [B, h, w, C], normalised.
          noise: float [B, T]; the patches with the smallest noise stay visible.

        Returns:
          loss: float32 [B], mean squared error over the masked patches of each image.
          prediction: [B, M, P], predicted targets of the masked patches.
          masked: int [B, M], row-major indices of these patches.
          tokens: [B, K, D], output of the encoder.
        """
        c = self.config
        order = jnp.argsort(noise, axis=1)  # [B, T]
        visible, masked = order[:, : c.visible], order[:, c.visible :]
        tokens = ViT(c, self.dtype, name="encoder")(images, visible)
        prediction = Decoder(c, self.dtype, name="decoder")(tokens, order)  # [B, M, P]
        patches = take_tokens(patchify(images, c.patch_size), masked)
        target = patch_targets(patches, c.normalize_targets)
        loss = jnp.square(wide(prediction) - target).mean((1, 2))
        return {"loss": loss, "prediction": prediction, "masked": masked, "tokens": tokens}


class Decoder(nn.Module):
    """Encoded visible patches to predictions for the masked ones."""

    config: MAEConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array, order: jax.Array) -> jax.Array:
        """tokens: [B, K, D], class token and registers first; order: int [B, T], visible patches first."""
        c, d = self.config, self.config.decoder
        p = {group: Parameters(table, d.network, name=group)() for group, table in decoder_table(c).items()}
        x = stack(d, decoder_tokens(p, tokens, order, c))[:, c.visible - c.patches :]
        return project(p["pixels"], norm(p["norm"], x, d.norm_eps))  # [B, M, P]


def decoder_tokens(p: Groups, tokens: jax.Array, order: jax.Array, c: MAEConfig) -> jax.Array:
    """Input of the first block of the decoder; the arguments are those of `Decoder`. [B, K + M, E]."""
    x = project(p["embed"], tokens)  # [B, K, E]
    mask = jnp.broadcast_to(p["mask"]["token"].astype(x.dtype), (x.shape[0], c.patches - c.visible, c.decoder_width))
    positions = jnp.asarray(sincos_2d(*c.grid, c.decoder_width), x.dtype)[order]  # [B, T, E]
    positions = jnp.pad(positions, ((0, 0), (c.prefix, 0), (0, 0)))
    return jnp.concatenate([x, mask], axis=1) + positions


def decoder_table(c: MAEConfig) -> parameters.Table:
    """Parameters of the decoder outside its blocks; `/` marks the encoder's width."""
    width = c.decoder_width
    return {
        "embed": {
            "kernel": ({"/embed": c.width, "embed": width}, parameters.xavier_uniform),
            "bias": ({"embed": width}, parameters.zeros),
        },
        "mask": {"token": ({"embed": width}, parameters.normal(0.02))},
        "norm": parameters.norm(width),
        "pixels": {
            "kernel": ({"embed": width, "patch": c.patch_values}, parameters.xavier_uniform),
            "bias": ({"patch": c.patch_values}, parameters.zeros),
        },
    }


def mae_inputs(c: MAEConfig) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Shapes of one image and its noise, for creating parameters."""
    return image_input(c), jax.ShapeDtypeStruct((1, c.patches), jnp.float32)


@functools.lru_cache(maxsize=64)  # a sweep asks for the same ones repeatedly
def abstract_mae(c: MAEConfig) -> tuple[Any, Any]:
    """Shapes and axis names of all parameters; see `abstract_params`. Not to be changed in place."""
    return parameters.abstract_params(MAE(c), *mae_inputs(c))


@functools.partial(jax.jit, static_argnums=3)
def coordinate_sizes(params: Any, images: jax.Array, noise: jax.Array, c: MAEConfig) -> dict[str, jax.Array]:
    """Mean absolute value of the coordinates of every output in a masked autoencoder.

    Args:
      params, images, noise: see `MAE`.
      c: the architecture.

    Returns:
      For `stem`, `tokens` (after all layers), `embed` (into the decoder) and `prediction` one number; for the sublayers
      `attention` and `mlp` one number per layer, of their output before the factor `residual_scale`; `decoder/...` for
      the decoder.
    """
    p, order = params["encoder"], jnp.argsort(noise, axis=1)
    x = stem(p, images, c, order[:, : c.visible])
    sizes = {"stem": jnp.abs(x).mean()}
    x, sizes_of = computed_sizes(p["blocks"], x, c)
    tokens = norm(p["norm"], x, c.norm_eps)
    d, p = c.decoder, params["decoder"]
    sizes |= sizes_of | {"embed": jnp.abs(project(p["embed"], tokens)).mean()}
    x, sizes_of = computed_sizes(p["blocks"], decoder_tokens(p, tokens, order, c), d)
    sizes |= {f"decoder/{name}": size for name, size in sizes_of.items()}
    x = x[:, c.visible - c.patches :]
    return sizes | {"prediction": jnp.abs(project(p["pixels"], norm(p["norm"], x, d.norm_eps))).mean()}
