"""The vision transformer encoder (Dosovitskiy et al., 2010.11929) for any number of bands and any patch size."""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scaling import axes
from scaling.core.errors import UserError
from scaling.models import parameters
from scaling.models.config import ViTConfig
from scaling.models.ops import layer_norm
from scaling.models.parameters import Nested, Parameters
from scaling.models.positions import FIXED, resample_positions
from scaling.models.stems.channels import attention_over_channels, embed
from scaling.models.transformer import Groups, Passed, norm, observed_stack, project

Array = TypeVar("Array", jax.Array, np.ndarray)


def patchify(images: Array, patch: int) -> Array:
    """Cuts images into patch vectors in (row, column, band) order. [B, h, w, C] -> [B, T, patch * patch * C]."""
    batch, height, width, bands = images.shape
    rows, columns = height // patch, width // patch
    x = images.reshape(batch, rows, patch, columns, patch, bands)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, patch * patch * bands)


def unpatchify(patches: Array, patch: int, bands: int, grid: tuple[int, int] = (0, 0)) -> Array:
    """The inverse of `patchify`. [B, T, patch * patch * C] -> [B, h, w, C].

    grid: rows and columns of patches; those of a square by default.
    """
    rows, columns = grid if any(grid) else (math.isqrt(patches.shape[1]),) * 2
    x = patches.reshape(-1, rows, columns, patch, patch, bands)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows * patch, columns * patch, bands)


def _pooled(x: jax.Array, c: ViTConfig) -> jax.Array:
    if c.final_norm == "tokens":
        return x
    return layer_norm(x, jnp.ones(c.width), jnp.zeros(c.width), c.norm_eps)


POOLS: dict[str, Callable[[jax.Array, ViTConfig], jax.Array]] = {
    "cls": lambda tokens, c: _pooled(tokens[:, 0], c),
    "mean": lambda tokens, c: _pooled(tokens[:, c.prefix :].mean(1), c),
    "tokens": lambda tokens, c: tokens,
}


def take_tokens(x: jax.Array, index: jax.Array) -> jax.Array:
    """Picks tokens per image. x: [B, T, D], index: [B, K] -> [B, K, D]."""
    return jnp.take_along_axis(x, index[:, :, None], axis=1)


class ViT(nn.Module):
    """Images to tokens.

    Attributes:
      config: the architecture.
      dtype: type of activations and matrix products; parameters, norms and softmax stay float32.
      layers: layers whose tokens are also returned, from 1 to `depth`.
    """

    config: ViTConfig
    dtype: jnp.dtype = jnp.float32
    layers: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, images: jax.Array, keep: jax.Array | None = None) -> Any:
        """Encodes images.

        Args:
          images: float [B, h, w, C], normalised.
          keep: int [B, K], the patches that are encoded (row-major index); None encodes all of them.

        Returns:
          [B, T, D] after the final norm (before it if `final_norm` is `pooled`): class token and registers, if any,
          then the patches in the order of `keep`, group by group. With `layers` also the tokens after each of them,
          before the final norm, in a tuple of [B, T, D].
        """
        c = self.config
        p: Any = {group: Parameters(table, c.network, name=group)() for group, table in stem_table(c).items()}
        if c.channel_width:
            p["stem"] = Nested(attention_over_channels(c).table, name="stem")()
        observe = behind_blocks if self.layers else None
        x, behind = observed_stack(c, stem(p, images.astype(self.dtype), c, keep), observe)
        if c.final_norm != "pooled":
            x = norm(Parameters(parameters.norm(c.width), c.network, name="norm")(), x, c.norm_eps)
        return (x, tuple(behind[layer - 1] for layer in self.layers)) if self.layers else x


@functools.partial(jax.jit, static_argnums=(2, 3))
def pooled(p: Any, x: jax.Array, c: ViTConfig, pool: str) -> jax.Array:
    """Features from the tokens after the last block: the final norm, then one of `POOLS`. [B, T, D] -> [B, D]."""
    return POOLS[pool](norm(p["norm"], x, c.norm_eps) if c.final_norm == "tokens" else x, c)


def behind_blocks(passed: Mapping[str, Passed]) -> jax.Array:
    """An `observe` function that returns the tokens after a block."""
    return passed["mlp"].after


def stem_table(c: ViTConfig) -> parameters.Table:
    """Parameters before the first block."""
    groups = {"groups": c.groups} if c.groups > 1 else {}
    table: parameters.Table = {}
    if not c.channel_width:
        table["patch"] = {
            "kernel": ({"patch": c.patch_values, **groups, "embed": c.width}, parameters.xavier_uniform),
            "bias": ({**groups, "embed": c.width}, parameters.zeros),
        }
    if c.class_token:
        table["cls"] = {"token": ({"embed": c.width}, parameters.normal(0.02))}
    if c.registers:
        table["registers"] = {"token": ({"registers": c.registers, "embed": c.width}, parameters.normal(0.02))}
    if c.position == "learned":
        table["position"] = {"embedding": ({"tokens": c.groups * c.patches, "embed": c.width}, parameters.normal(0.02))}
    return table


def stem(p: Any, images: jax.Array, c: ViTConfig, keep: jax.Array | None = None) -> jax.Array:
    """Images to the tokens that enter the first block; see `ViT` for `keep`. [B, h, w, C] -> [B, T, D]."""
    if c.patch_offset:
        shift = [(0, 0), (c.patch_offset, 0), (c.patch_offset, 0), (0, 0)]
        images = jnp.pad(images, shift)[:, : -c.patch_offset, : -c.patch_offset]
    positions = position_embedding(p, c)
    if c.channel_width:
        x = embed(p["stem"], images, c)
    elif keep is None:
        x = project(p["patch"], patchify(images, c.patch_size))
    else:
        x, positions = project(p["patch"], take_tokens(patchify(images, c.patch_size), keep)), positions[keep]
    if c.groups > 1:
        x = x.reshape(*x.shape[:2], c.groups, c.width).swapaxes(1, 2)  # [B, J, T, D]
        x = x.reshape(x.shape[0], -1, c.width)
    x = x + positions.astype(x.dtype)
    first = [p[group]["token"].reshape(-1, c.width) for group in ("cls", "registers") if group in p]
    if first:
        tokens = jnp.concatenate(first).astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(tokens, (x.shape[0], *tokens.shape)), x], axis=1)
    return axes.constrain(x, "batch", "tokens", "embed")


def position_embedding(p: Groups, c: ViTConfig) -> jax.Array:
    """The embeddings added to the patches, fixed or learned. [J T, D]."""
    if c.position == "learned":
        table = p["position"]["embedding"]
        return jax.lax.stop_gradient(table) if c.fixed_positions else table
    if c.position == "none":
        return jnp.zeros((c.groups * c.patches, c.width))
    return jnp.tile(FIXED[c.position](*c.grid, c.width), (c.groups, 1))


def with_learned_positions(p: Any, c: ViTConfig) -> tuple[Any, ViTConfig]:
    """The same encoder with its fixed position embeddings as a parameter, so that they can be cut like the rest."""
    return {**p, "position": {"embedding": np.asarray(position_embedding(p, c))}}, _with_learned_positions(c)


def _with_learned_positions(c: ViTConfig) -> ViTConfig:
    return dataclasses.replace(c, position="learned", fixed_positions=c.fixed_positions or c.position != "learned")


def cuttable(p: Any, c: ViTConfig, cut: Collection[str]) -> tuple[Any, ViTConfig]:
    """The same encoder with every array that these axes index held as a parameter: fixed positions become learned
    ones.
    """
    return (p, c) if cuttable_config(c, cut) is c else with_learned_positions(p, c)


def cuttable_config(c: ViTConfig, cut: Collection[str]) -> ViTConfig:
    """The architecture of `cuttable`."""
    return _with_learned_positions(c) if "embed" in cut and c.position in FIXED else c


def at_image_size(p: Any, c: ViTConfig, image_size: int, image_width: int = 0) -> tuple[Any, ViTConfig]:
    """The same encoder for images of another size: its position embeddings, fixed ones included, are resampled to the
    new grid as in ViTDet and mmsegmentation (bicubic, a = -0.75), and become a parameter.

    Raises:
      UserError: the patches do not divide the size, or the encoder takes images of one size only.
    """
    resized = for_image_size(c, image_size, image_width)
    if resized == c or c.position == "none":
        return p, resized
    table = np.asarray(position_embedding(p, c))
    return {**p, "position": {"embedding": resample_positions(table, c.grid, resized.grid, antialias=False)}}, resized


def with_relative_positions(p: Any, c: ViTConfig) -> Any:
    """The parameters of an encoder with those of `StackConfig.relative` added if the configuration has them and
    they are missing: zeros, which change nothing.
    """
    if not c.relative or "relative" in p["blocks"]:
        return p
    shapes = abstract_vit(c)[0]["blocks"]["relative"]
    return {**p, "blocks": {**p["blocks"], "relative": jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)}}


def for_image_size(c: ViTConfig, image_size: int, image_width: int = 0) -> ViTConfig:
    """The architecture of `at_image_size`, and its errors."""
    width = 0 if image_width == image_size else image_width
    resized = dataclasses.replace(c, image_size=image_size, image_width=width)
    if resized.image_shape == c.image_shape:
        return c
    resized.check()
    if c.position == "none":
        return resized
    if c.channel_width or c.groups > 1:
        raise UserError(f"image_size={resized.sides}: this encoder takes only {c.sides}; leave it out")
    return _with_learned_positions(resized)


@functools.lru_cache(maxsize=16)  # a sweep asks for the same ones repeatedly
def abstract_vit(c: ViTConfig) -> tuple[Any, Any]:
    """Shapes and axis names of all parameters of an encoder; see `abstract_params`. Not to be changed in place."""
    return parameters.abstract_params(ViT(c), image_input(c))


def image_input(c: ViTConfig, images: int = 1, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """Shape of one image, for creating parameters; or of several."""
    return jax.ShapeDtypeStruct((images, *c.image_shape, c.bands), dtype)
