"""Architectures: a stack of blocks, and an encoder of images."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax

from scaling.core.config import copied
from scaling.core.errors import UserError
from scaling.models.positions import FIXED

LOG_SUM = "log_sum"  # name of the saved log-sum of the logits, one number per row
REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
        jax.checkpoint_policies.save_only_these_names(LOG_SUM),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}

_LARGEST = 1 << 24  # of any size of a model
WINDOW_PADDING = ("zeros", "masked")
ATTENTION = ("auto", "einsum", "fused", "cudnn")  # see `scaling.models.attention`

# Fields of StackConfig that are the size of an axis.
AXIS_FIELDS = {
    "layers": "depth",
    "branch": "branches",
    "embed": "width",
    "heads": "heads",
    "head_dim": "head_dim",
    "mlp": "mlp",
}


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """A stack of blocks.

    Attributes:
      width, depth, heads, head_dim, mlp: sizes of the axes embed, layers, heads, head_dim and mlp.
      branches: parallel branches R of a block: x + sum_r attention_r(norm(x)), then x + sum_r mlp_r(norm(x)), with one
        LayerNorm shared by the branches (Touvron et al., 2203.09795; Cha et al., 2304.05215).
      gated: SwiGLU instead of GELU in the MLP.
      qk_norm: LayerNorm of queries and keys over head_dim (Dehghani et al., 2302.05442).
      layer_scale: initial value of the per-channel scale of each residual branch; 0 leaves it out.
      attention_scale: factor of the attention logits; 0 means head_dim ** -0.5.
      residual_scale: factor of the output of every sublayer before it is added to the tokens.
      alibi: whether every head subtracts from its logits the distance of two patches on their grid, times a
        fixed slope of its own (Press et al., 2108.12409; in two dimensions CROMA, Fuller et al., 2311.00566).
      attention: implementation of attention in training: `einsum`; `fused` (for TPUs) or `cudnn` (for GPUs), kernels
        that never write the logits to memory; or `auto`, which uses the TPU kernel for long sequences; see
        `scaling.models.attention`.
      half_logits: whether `einsum` keeps the logits and their gradients in the dtype of the matrix products instead of
        float32, which halves their memory in bfloat16; the softmax is float32 either way. Changes the numbers.
      window: side, in tokens, of the square windows to which attention is limited (ViTDet, Li et al., 2203.16527; see
        `relative` for its positions); 0 for attention over all tokens in every block. Only patches have windows:
        fine-tuning with windows drops class token and registers, as ViTDet does.
      global_blocks: blocks that still attend to all tokens, from 1 to `depth`; empty for the last of every quarter, as
        in ViTDet.
      window_padding: padding of windows that extend beyond the grid: `zeros` after the norm, which act as keys, as
        published, or `masked`, which no token attends to.
      relative: whether row and column offsets between patches have learned vectors, whose products with the unscaled
        query are added to its logits (ViTDet's decomposed relative positions); every branch has its own. These
        products, 2 to 4 % of an encoder's, are not counted as operations.
      norm_eps: epsilon of every LayerNorm.
      remat: part recomputed in the backward pass: none, all but the matrix products (dots), or the whole block (full).
      unroll: whether the scan over layers is compiled as straight code: slower to compile, faster on CPUs.
      network: prefix of the axis names, empty for the encoder.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    head_dim: int = 64
    mlp: int = 3072
    branches: int = 1
    gated: bool = False
    qk_norm: bool = False
    layer_scale: float = 0.0
    attention_scale: float = 0.0
    residual_scale: float = 1.0
    alibi: bool = False
    attention: str = "auto"
    half_logits: bool = False
    window: int = 0
    global_blocks: tuple[int, ...] = ()
    window_padding: str = "zeros"
    relative: bool = False
    norm_eps: float = 1e-6
    remat: str = "none"
    unroll: bool = False
    network: str = ""

    @property
    def scale(self) -> float:
        return self.attention_scale or self.head_dim**-0.5

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid; 0, 0 if tokens have no positions."""
        return 0, 0

    @property
    def attending_to_all(self) -> tuple[int, ...]:
        """The blocks that attend to all tokens, from 1 to `depth`."""
        if not self.window:
            return tuple(range(1, self.depth + 1))
        return self.global_blocks or tuple(sorted({self.depth * i // 4 for i in range(1, 5)} - {0}))

    @property
    def of_blocks(self) -> tuple[Self, ...]:
        """The configuration of each block; `window` is 0 or the window of that block."""
        everywhere = dataclasses.replace(self, window=0, global_blocks=())
        return tuple(everywhere if i in self.attending_to_all else self for i in range(1, self.depth + 1))

    def with_blocks(self, blocks: Sequence[int]) -> Self:
        """The configuration of a subset of the blocks, counted from 0; windows stay with their blocks.

        Raises:
          UserError: all remaining blocks have windows.
        """
        if not self.window:
            return dataclasses.replace(self, depth=len(blocks))
        everywhere = tuple(new for new, old in enumerate(blocks, 1) if old + 1 in self.attending_to_all)
        if not everywhere:
            raise UserError(f"blocks={list(blocks)}: all of these have windows; keep one that attends to all tokens")
        return dataclasses.replace(self, depth=len(blocks), global_blocks=everywhere)

    def scales_from(self, base: "StackConfig", deep: bool) -> tuple[float, float]:
        """`attention_scale` and `residual_scale` that keep logits, and if `deep` also sums of residuals, at the
        size that they have in a base of other sizes.
        """
        attention = base.scale * base.head_dim / self.head_dim
        return attention, base.depth / self.depth if deep else 1.0

    def resized(self, sizes: Mapping[str, int]) -> Self:
        """The configuration of the same network with other axis sizes.

        The scale of the logits keeps its ratio to head_dim ** -0.5.
        """
        same = self.with_blocks(range(sizes["layers"])) if sizes.get("layers", self.depth) < self.depth else self
        fields: dict[str, Any] = {field: sizes[axis] for axis, field in AXIS_FIELDS.items() if axis in sizes}
        new = dataclasses.replace(same, **fields)
        return dataclasses.replace(new, attention_scale=self.attention_scale * (self.head_dim / new.head_dim) ** 0.5)


@dataclasses.dataclass(frozen=True)
class ViTConfig(StackConfig):
    """An encoder: patch embedding, positions and extra tokens, followed by a stack of blocks.

    Attributes:
      image_size, image_width: height and width of an image in pixels; a width of 0 is a square image.
      patch_size: side of a patch in pixels.
      bands: channels of the image.
      position: position embeddings, added to the patches only: `sincos` (MAE's) or `sincos_rows` (MoCo v3's), which are
        fixed and have no parameters, `learned`, or `none`.
      fixed_positions: whether the table of `learned` is not trained: fixed embeddings other than `sincos`, kept as a
        parameter.
      class_token: whether a learned token without position precedes the patches.
      registers: number of further such tokens, after the class token (Darcet et al., 2309.16588).
      groups: number of tokens per patch, each with its own kernel (SatMAE's groups of bands, Cong et al., 2207.08051).
      channel_width, channel_heads: sizes of the attention over channels that embeds patches
        (`scaling.models.stems.channels`); 0 to embed them by a matrix.
      patch_offset: pixels by which every patch is shifted up and left, with zeros beyond the border, like the padding
        of a convolution.
      final_norm: position of the final LayerNorm: over the `tokens`, or, without parameters, after they are `pooled`
        (DOFA, Copernicus-FM).
    """

    image_size: int = 224
    image_width: int = 0
    patch_size: int = 16
    bands: int = 3
    position: str = "sincos"
    fixed_positions: bool = False
    class_token: bool = True
    registers: int = 0
    groups: int = 1
    channel_width: int = 0
    channel_heads: int = 0
    patch_offset: int = 0
    final_norm: str = "tokens"

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image_size, self.image_width or self.image_size

    @property
    def sides(self) -> int | list[int]:
        """Size as written in files: a single number for a square."""
        height, width = self.image_shape
        return height if height == width else [height, width]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image_shape
        return height // self.patch_size, width // self.patch_size

    @property
    def patches(self) -> int:
        return math.prod(self.grid)

    @property
    def prefix(self) -> int:
        """Number of tokens before those of the patches."""
        return self.class_token + self.registers

    @property
    def tokens(self) -> int:
        return self.prefix + self.groups * self.patches

    @property
    def patch_values(self) -> int:
        return self.patch_size**2 * self.bands

    def check(self) -> None:
        """Raises UserError for an architecture that cannot be built."""
        for field in ("width", "depth", "heads", "head_dim", "mlp", "branches", "patch_size", "bands", "groups"):
            if getattr(self, field) < 1:
                raise UserError(f"model.{field}={getattr(self, field)}: must be at least 1")
        for field in ("width", "depth", "heads", "head_dim", "mlp", "bands", "image_size", "image_width", "registers"):
            if getattr(self, field) > _LARGEST:  # arrays of that length are made to describe the model
                raise UserError(f"model.{field}={getattr(self, field)}: must be at most {_LARGEST:,}")
        self._check_image()
        allowed_values = {
            "position": (*FIXED, "learned", "none"),
            "attention": ATTENTION,
            "remat": tuple(REMAT),
            "final_norm": ("tokens", "pooled"),
            "window_padding": WINDOW_PADDING,
        }
        for field, allowed in allowed_values.items():
            if getattr(self, field) not in allowed:
                raise UserError(f"model.{field}={getattr(self, field)!r}: must be one of {', '.join(allowed)}")
        if self.alibi and (self.prefix or self.groups > 1):
            raise UserError("model.alibi=True: needs exactly one token per patch and no other tokens")
        if self.position in FIXED and self.width % 4:
            raise UserError(f"model.width={self.width}: must be a multiple of 4 for sin-cos positions")
        self._check_windows()

    def check_pretraining(self) -> None:
        """Raises UserError for an encoder that cannot be pretrained here; see also `check`."""
        if self.groups > 1 or self.final_norm != "tokens" or self.alibi or self.channel_width:
            raise UserError(
                "groups, alibi, channel_width and final_norm=pooled are only supported for imported encoders"
            )

    def _check_windows(self) -> None:
        at = f"model.window={self.window}"
        if self.window < 0:
            raise UserError(f"{at}: must not be negative; 0 for attention over all tokens")
        if self.global_blocks and not self.window:
            raise UserError(
                f"model.global_blocks={self.global_blocks}: has no effect without windows; set model.window too"
            )
        if wrong := [i for i in self.global_blocks if not 1 <= i <= self.depth]:
            raise UserError(f"model.global_blocks: there is no block {wrong[0]}; name those from 1 to {self.depth}")
        if self.relative and (self.prefix or self.groups > 1 or self.alibi):
            raise UserError(
                "model.relative=True: needs one token per patch; set class_token=False, registers=0, groups=1, no alibi"
            )
        if self.window and (self.prefix or self.groups > 1 or self.alibi):
            raise UserError(
                f"{at}: windows need one token per patch; set class_token=False, registers=0, groups=1 and alibi=False"
            )

    def _check_image(self) -> None:
        for field, grid in zip(("image_size", "image_width"), self.grid, strict=True):
            size = getattr(self, field)
            if size < 0 or (field == "image_size" and not size):
                raise UserError(f"model.{field}={size}: must be a positive number of pixels")
            if size % self.patch_size:
                raise UserError(
                    f"model.{field}={size} is not divisible by model.patch_size={self.patch_size}; "
                    f"the nearest sizes that are: {grid * self.patch_size}, {(grid + 1) * self.patch_size}"
                )


def encoder_config(c: ViTConfig) -> ViTConfig:
    """The encoder of a model configuration that includes one."""
    return copied(ViTConfig, c)
