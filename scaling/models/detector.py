"""An encoder with ViTDet's pyramid and a detection head."""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling import axes
from scaling.core.errors import UserError
from scaling.models import parameters
from scaling.models.config import ViTConfig
from scaling.models.heads.detectors import DETECTORS, Detector
from scaling.models.heads.layers import NETWORK, Layers, head_table
from scaling.models.heads.simple_pyramid import simple_pyramid, simple_pyramid_layers
from scaling.models.parameters import Nested
from scaling.models.vit import ViT, image_input


@dataclasses.dataclass(frozen=True)
class DetectorConfig(ViTConfig):
    """An encoder and its head.

    Attributes:
      classes: number of classes, without the background.
      head: one of `scaling.models.heads.detectors.DETECTORS`.
      channels: channels of the pyramid and of the convolutions after it.
      hidden: width of the fully connected layers.
      anchor_size: sides of the anchors relative to the published ones, of which the smallest square has 8 strides of
        the finest level (`oriented_rcnn`), 16 pixels with patches of 8.
      proposals: number of proposals that the first stage keeps per level, and number that it passes to the second
        stage, also in training.
      anchor_samples, roi_samples: anchors and proposals per image in the loss of a step.
      detections: maximum number of detections per image.
      least_score: score above which a detection is kept.
      frozen: whether the encoder is not trained.
    """

    classes: int = 1
    head: str = "oriented_rcnn"
    channels: int = 256
    hidden: int = 1024
    anchor_size: float = 1.0
    proposals: int = 2000
    anchor_samples: int = 256
    roi_samples: int = 512
    detections: int = 2000
    least_score: float = 0.05
    frozen: bool = False

    @property
    def detector(self) -> Detector:
        return DETECTORS[self.head]

    @property
    def head_layers(self) -> Layers:
        """Pyramid and head."""
        pyramid = simple_pyramid_layers(self.width, self.grid, self.channels, self.detector.levels)
        return pyramid | self.detector.layers(self)

    def check_fields(self) -> None:
        """Raises UserError for fields that are invalid with any encoder."""
        if self.head not in DETECTORS:
            raise UserError(f"task.head={self.head!r}: must be one of {', '.join(DETECTORS)}")
        for field in ("channels", "hidden", "proposals", "detections"):
            if getattr(self, field) < 1:
                raise UserError(f"task.{field}={getattr(self, field)}: must be at least 1")
        for field in ("anchor_samples", "roi_samples"):
            if getattr(self, field) < 4:
                raise UserError(
                    f"task.{field}={getattr(self, field)}: must be at least 4, so that some of them are objects"
                )
        if not 0 < self.anchor_size < math.inf:
            raise UserError(f"task.anchor_size={self.anchor_size}: must be above 0 and finite; 1 is as published")
        if not 0 <= self.least_score < 1:
            raise UserError(f"task.least_score={self.least_score}: must be at least 0 and below 1")

    def check(self) -> None:
        super().check()
        self.check_fields()
        if self.groups > 1:
            raise UserError(f"model.groups={self.groups}: detection needs one token per patch; choose another encoder")
        for field, places in zip(("image_size", "image_width"), self.grid, strict=True):
            if places % 2:
                side, twice = places * self.patch_size, 2 * self.patch_size
                raise UserError(
                    f"{field}={side}: the pyramid halves the {places} patches of a side; set a multiple of {twice}, "
                    f"such as {side + self.patch_size}"
                )


class DetectorNetwork(nn.Module):
    """Images to the maps that the head reads; declares the parameters of all of it. See `ViT` for `dtype`."""

    config: DetectorConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> list[jax.Array]:
        """float [B, h, w, C], normalised -> [B, rows, columns, channels] of every level.

        The pyramid reads the encoder's output after the final norm, as in RVSA; ViTDet's encoder has no final norm.
        """
        c = self.config
        tokens = ViT(c, self.dtype, name="encoder")(images)
        x = tokens[:, c.prefix :].reshape(tokens.shape[0], *c.grid, c.width)
        x = jax.lax.stop_gradient(x) if c.frozen else x
        x = axes.constrain(x, "batch", "rows", "columns", "embed")
        p = Nested(head_table(c.head_layers), NETWORK, name="head")()
        return simple_pyramid(p, x, c.detector.levels)


def init_head(c: DetectorConfig, seed: int) -> Any:
    """The head before the first step, drawn by `seed`."""
    return parameters.init_params(Nested(head_table(c.head_layers), NETWORK), seed)


@functools.lru_cache(maxsize=16)
def abstract_detector(c: DetectorConfig) -> tuple[Any, Any]:
    """Shapes and axis names of all parameters; see `abstract_params`. Not to be changed in place."""
    return parameters.abstract_params(DetectorNetwork(c), image_input(c))
