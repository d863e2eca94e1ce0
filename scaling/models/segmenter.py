"""An encoder with a segmentation head, which predicts the class of every pixel."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling import axes
from scaling.core.errors import UserError
from scaling.models import parameters
from scaling.models.config import ViTConfig
from scaling.models.heads.heads import HEADS, Keep, Kind
from scaling.models.heads.layers import NETWORK, Layers, head_table
from scaling.models.heads.norms import NORMS, Norms, Statistics
from scaling.models.parameters import Nested
from scaling.models.vit import ViT, image_input


@dataclasses.dataclass(frozen=True)
class SegmenterConfig(ViTConfig):
    """An encoder and its head.

    Attributes:
      classes: number of classes.
      head: one of `scaling.models.heads.heads.HEADS`.
      layers: layers after which the head reads the tokens, from 1 to `depth`, as many as it needs; empty for a third, a
        half, two thirds and the whole of the depth (MTP and RVSA).
      channels, auxiliary_channels: channels of the head and of its auxiliary head.
      auxiliary: whether there is an auxiliary head.
      norm, norm_groups: normalisation of every map in the head; see `Norms`.
      frozen: whether the encoder is not trained.
    """

    classes: int = 2
    head: str = "upernet"
    layers: tuple[int, ...] = ()
    channels: int = 512
    auxiliary_channels: int = 256
    auxiliary: bool = True
    norm: str = "batch"
    norm_groups: int = 32
    frozen: bool = False

    @property
    def kind(self) -> Kind:
        return HEADS[self.head]

    @property
    def taken(self) -> tuple[int, ...]:
        """The layers that are read; empty for a head of one map, which reads the tokens after the final norm."""
        if self.kind.maps == 1:
            return ()
        return self.layers or tuple(max(round(self.depth * share), 1) for share in (1 / 3, 1 / 2, 2 / 3, 1))

    @property
    def head_layers(self) -> Layers:
        return self.kind.layers(self)

    def check_fields(self) -> None:
        """Raises UserError for fields that are invalid with any encoder."""
        for field, values in {"head": tuple(HEADS), "norm": NORMS}.items():
            if getattr(self, field) not in values:
                raise UserError(f"task.{field}={getattr(self, field)!r}: must be one of {', '.join(values)}")
        for field in ("channels", "auxiliary_channels", "norm_groups"):
            if getattr(self, field) < 1:
                raise UserError(f"task.{field}={getattr(self, field)}: must be at least 1")

    def check(self) -> None:
        super().check()
        self.check_fields()
        if self.groups > 1:
            raise UserError(
                f"model.groups={self.groups}: segmentation needs one token per patch; choose another encoder"
            )
        read = f"task.layers={self.layers}"
        if self.layers and self.kind.maps == 1:
            raise UserError(f"{read}: the head {self.head} reads only the output of the encoder; leave it out")
        if len(self.taken) not in (0, self.kind.maps):
            raise UserError(f"{read}: the head {self.head} reads {self.kind.maps} layers; name as many")
        if wrong := [layer for layer in self.layers if not 1 <= layer <= self.depth]:
            raise UserError(f"{read}: there is no layer {wrong[0]}; name those from 1 to {self.depth}")
        if self.head == "upernet" and min(self.grid) < 2:
            raise UserError(
                f"model.image_size={self.sides}: upernet needs at least two patches per side; set a larger size"
            )
        self._check_groups()

    def _check_groups(self) -> None:
        for name, layer in self.head_layers.items():
            if self.norm == "group" and layer.norm and layer.outputs % self.norm_groups:
                raise UserError(
                    f"task.norm_groups={self.norm_groups}: must divide the {layer.outputs} channels of {name}; change"
                )


class Segmenter(nn.Module):
    """Images to logits; see `ViT` for `dtype`."""

    config: SegmenterConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, running: Mapping[str, Any] | None = None, keep: Keep | None = None
    ) -> tuple[dict[str, jax.Array], Statistics]:
        """Classifies every place of the finest map.

        Args:
          images: float [B, h, w, C], normalised.
          running: running statistics for batch norm; None to use those of these images.
          keep: factors of the channels before the classifier, per image; see `drawn_keep`.

        Returns:
          `logits` float32 [B, h', w', K], and `auxiliary` likewise if there is an auxiliary head; and the statistics of
          these images for each batch norm.
        """
        c = self.config
        encoder = ViT(c, self.dtype, c.taken, name="encoder")
        tokens, behind = encoder(images) if c.taken else (encoder(images), ())
        maps = [self._map(x) for x in behind or (tokens,)]
        norms = Norms(c.norm, c.norm_groups, running)
        head = Nested(head_table(c.head_layers), NETWORK, name="head")()
        return c.kind.apply(head, maps, norms, keep or {}), norms.seen

    def _map(self, tokens: jax.Array) -> jax.Array:
        """[B, T, D] -> [B, rows, columns, D], without the tokens before the patches."""
        c = self.config
        x = tokens[:, c.prefix :].reshape(tokens.shape[0], *c.grid, c.width)
        x = jax.lax.stop_gradient(x) if c.frozen else x
        return axes.constrain(x, "batch", "rows", "columns", "embed")


def segmenter_input(c: SegmenterConfig) -> jax.ShapeDtypeStruct:
    """Images to create parameters with: two, since a single one has no variance."""
    return image_input(c, 2)


def init_head(c: SegmenterConfig, seed: int) -> Any:
    """The head before the first step, drawn by `seed`."""
    return parameters.init_params(Nested(head_table(c.head_layers), NETWORK), seed)


@functools.lru_cache(maxsize=16)
def abstract_segmenter(c: SegmenterConfig) -> tuple[Any, Any]:
    """Shapes and axis names of all parameters; see `abstract_params`. Not to be changed in place."""
    return parameters.abstract_params(Segmenter(c), segmenter_input(c))


def drawn_keep(c: SegmenterConfig, key: jax.Array, images: int, rate: float) -> dict[str, jax.Array]:
    """Dropout factors of the channels before the classifier, [B, C]: 0 with probability `rate`, else 1 / (1 - rate)."""
    widths = {"logits": c.channels} | ({"auxiliary": c.auxiliary_channels} if c.auxiliary else {})
    if c.kind.maps == 1 or not rate:
        return {}
    return {
        name: jax.random.bernoulli(jax.random.fold_in(key, i), 1 - rate, (images, width)) / (1 - rate)
        for i, (name, width) in enumerate(widths.items())
    }
