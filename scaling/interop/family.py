"""What a family of checkpoints says of itself, and what is read from the shapes of its arrays."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from scaling.errors import UserError
from scaling.interop.mapping import Arrays, Place, Table, expression
from scaling.models.mae import MAEConfig
from scaling.models.positions import sincos_2d

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # of red, green and blue from 0 to 255 (torchvision)
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}  # of plain ViTs by width

# Places that are no parameters of ours: positions go into the class token and the position embedding, or are fixed.
POSITIONS, DECODER_POSITIONS = Place("encoder/positions"), Place("decoder/positions")


@dataclasses.dataclass(frozen=True)
class Family:
    """Checkpoints that share their keys.

    Attributes:
      name: what users call it.
      prefixes: what may stand before the keys.
      mixed: whether keys without the prefix belong to the model too; else they are not looked at.
      table, unused: see `scaling.interop.mapping.fill`.
      norm_eps: of every LayerNorm; not in the weights.
      heads: by width; not in the weights.
      decoder_heads: of the decoder.
      image_size: where the file has the positions of several frames: of one frame, of which the first is taken.
      bands, mean, std: names of the channels and their normalisation, in the units of the images.
      licence: of the published weights; those who convert a file of their own know better.
    """

    name: str
    prefixes: tuple[str, ...]
    table: Table
    unused: tuple[str, ...]
    norm_eps: float
    licence: str
    mixed: bool = False
    heads: Mapping[int, int] = dataclasses.field(default_factory=lambda: HEADS)
    decoder_heads: int = 16
    image_size: int = 0
    bands: tuple[str, ...] = ("red", "green", "blue")
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]

    def stripped(self, arrays: Arrays) -> Arrays | None:
        """The arrays without the family's prefix; None where no patch embedding is found."""
        for prefix in self.prefixes:
            mine = {k.removeprefix(prefix): x for k, x in arrays.items() if self.mixed or k.startswith(prefix)}
            if self.key(mine, "encoder/patch/kernel") and self.key(mine, "encoder/blocks/mlp_in/kernel"):
                return mine
        return None

    def key(self, arrays: Arrays, path: str) -> str | None:
        """The first key whose array goes to a parameter."""
        return next(iter(self._keys(arrays, path)), None)

    def _keys(self, arrays: Arrays, path: str) -> list[str]:
        patterns = [expression(pattern) for pattern, place in self.table.items() if place.path == path]
        return [key for key in arrays if any(p.fullmatch(key) for p in patterns)]

    def channels(self, arrays: Arrays) -> int:
        """Of the patch embedding."""
        return arrays[self.key(arrays, "encoder/patch/kernel") or ""].shape[1]

    def architecture(self, arrays: Arrays, settings: Mapping[str, Any]) -> tuple[MAEConfig, Arrays]:
        """The model that the arrays are of, and the arrays that fill its parameters.

        Args:
          arrays: without prefix.
          settings: what transformers keeps in config.json; empty without one. `heads` overrides.

        Raises:
          UserError: what is neither in the weights nor in the settings, or positions that cannot be ours.
        """
        kernel = arrays[self.key(arrays, "encoder/patch/kernel") or ""]
        width, bands, patch = kernel.shape[0], kernel.shape[1], kernel.shape[-1]
        heads = settings.get("heads") or settings.get("num_attention_heads") or self.heads.get(width)
        if not heads or width % heads:
            raise UserError(f"the number of heads is not in the weights: give --heads (width {width}, heads {heads})")
        fields = {
            "width": width,
            "bands": bands,
            "patch_size": patch,
            "depth": len(self._keys(arrays, "encoder/blocks/mlp_out/kernel")),
            "heads": heads,
            "head_dim": width // heads,
            "mlp": arrays[self.key(arrays, "encoder/blocks/mlp_in/kernel") or ""].shape[0],
            "norm_eps": settings.get("layer_norm_eps", self.norm_eps),
            "class_token": self.key(arrays, "encoder/cls/token") is not None,
            "layer_scale": 1e-5 if self.key(arrays, "encoder/blocks/attention_scale/gain") else 0.0,
        }
        grid, position, arrays = self._positions(arrays, width, fields["class_token"])
        fields |= {"image_size": grid * patch, "position": position}
        decoder = self.key(arrays, "decoder/embed/kernel")
        if decoder:
            fields |= {
                "decoder_width": arrays[decoder].shape[0],
                "decoder_depth": len(self._keys(arrays, "decoder/blocks/mlp_out/kernel")),
                "decoder_heads": settings.get("decoder_num_attention_heads", self.decoder_heads),
            }
            arrays = self._without_decoder_positions(arrays, grid, fields["decoder_width"])
        return MAEConfig(**fields), arrays

    def _positions(self, arrays: Arrays, width: int, class_token: bool) -> tuple[int, str, Arrays]:
        """Side of the grid, `sincos` or `learned`, and the arrays with the class token's position in that token."""
        key = self.key(arrays, POSITIONS.path)
        if key is None:
            raise UserError("the file has no position embeddings")
        table = np.asarray(arrays[key], np.float32).reshape(-1, width)
        arrays = {name: x for name, x in arrays.items() if name != key}
        if self.image_size:
            patch = arrays[self.key(arrays, "encoder/patch/kernel") or ""].shape[-1]
            table = table[: (self.image_size // patch) ** 2 + class_token]
        grid = math.isqrt(len(table))
        if len(table) == grid**2 + 1 and class_token:
            token = self.key(arrays, "encoder/cls/token") or ""
            arrays[token] = np.asarray(arrays[token], np.float32).reshape(width) + table[0]
            table = table[1:]
        if len(table) != grid**2:
            raise UserError(f"{key} has {len(table)} positions, which is no square")
        if np.allclose(table, sincos_2d(grid, grid, width), atol=1e-6):
            return grid, "sincos", arrays
        return grid, "learned", arrays | {LEARNED: table}

    def _without_decoder_positions(self, arrays: Arrays, grid: int, width: int) -> Arrays:
        key = self.key(arrays, DECODER_POSITIONS.path)
        if key is None:
            return arrays
        table = np.asarray(arrays[key], np.float32).reshape(-1, width)[-(grid**2) :]
        if not np.allclose(table, sincos_2d(grid, grid, width), atol=1e-6):
            raise UserError(f"{key} is not the fixed sin-cos embedding that the decoder has here")
        return {name: x for name, x in arrays.items() if name != key}


LEARNED = "position embeddings without the class token's"


def timm_block(source: str, ours: str) -> dict[str, Place]:
    """The keys of one block of timm, which most others have too."""
    pairs = {
        "norm1.weight": "attention_norm/scale",
        "norm1.bias": "attention_norm/bias",
        "attn.qkv.weight": "qkv/kernel",
        "attn.qkv.bias": "qkv/bias",
        "attn.proj.weight": "attention_out/kernel",
        "attn.proj.bias": "attention_out/bias",
        "norm2.weight": "mlp_norm/scale",
        "norm2.bias": "mlp_norm/bias",
        "mlp.fc1.weight": "mlp_in/kernel",
        "mlp.fc1.bias": "mlp_in/bias",
        "mlp.fc2.weight": "mlp_out/kernel",
        "mlp.fc2.bias": "mlp_out/bias",
        "ls1.gamma": "attention_scale/gain",
        "ls2.gamma": "mlp_scale/gain",
    }
    return {f"{source}.{key}": Place(f"{ours}/{path}") for key, path in pairs.items()}


def plain_table(**renamed: str) -> dict[str, Place]:
    """The keys of a plain ViT of timm; `renamed` replaces what stands before `.weight` and `.bias`, or a whole key."""
    names = {"patch": "patch_embed.proj", "norm": "norm", "cls": "cls_token", "position": "pos_embed"} | renamed
    return {
        f"{names['patch']}.weight": Place("encoder/patch/kernel"),
        f"{names['patch']}.bias": Place("encoder/patch/bias"),
        names["cls"]: Place("encoder/cls/token"),
        names["position"]: POSITIONS,
        LEARNED: Place("encoder/position/embedding"),
        f"{names['norm']}.weight": Place("encoder/norm/scale"),
        f"{names['norm']}.bias": Place("encoder/norm/bias"),
    }


def mae_decoder_table(prefix: str) -> dict[str, Place]:
    """The keys of the decoder of facebookresearch/mae beside its blocks, behind a prefix."""
    table = {"mask_token": Place("decoder/mask/token"), "decoder_pos_embed": DECODER_POSITIONS}
    for module, group in (("decoder_embed", "embed"), ("decoder_pred", "pixels")):
        table[f"{module}.weight"] = Place(f"decoder/{group}/kernel")
        table[f"{module}.bias"] = Place(f"decoder/{group}/bias")
    table["decoder_norm.weight"], table["decoder_norm.bias"] = Place("decoder/norm/scale"), Place("decoder/norm/bias")
    return {prefix + key: place for key, place in table.items()}
