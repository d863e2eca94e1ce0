"""The definition of a checkpoint family, and the architecture derived from the shapes of its arrays."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.interop.acquisition import Acquisition
from scaling.interop.mapping import Arrays, KeyTable, Place, expression
from scaling.interop.positions import (
    DECODER_POSITIONS,
    LEARNED,
    POSITIONS,
    grid_of_frames,
    is_computed,
    resized_positions,
    separate_positions,
    square_grid,
    without_fixed_positions,
)
from scaling.interop.settings import Settings
from scaling.models.mae import MAEConfig
from scaling.models.stems.channels import HEADS as CHANNEL_HEADS

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # of red, green and blue from 0 to 255 (torchvision)
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1408: 16, 1664: 16}  # heads of plain ViTs by width


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of checkpoints that share their keys.

    Attributes:
      name: name of the family for users.
      prefixes: prefixes that the keys may have.
      mixed: whether keys without the prefix belong to the model too; else they are ignored.
      signature: a key that identifies the family; empty for the patch embedding of the table.
      by_name: whether the family is only considered when named, because others have the same keys.
      table, unused, absent: see `scaling.interop.mapping.fill`.
      prepare: turns the arrays of the file into those of the table, if no table can express that.
      takes: metadata of the images that it uses, and whether it is required; see `Acquisition`.
      norm_eps: epsilon of every LayerNorm, which is not in the weights.
      heads: heads by width, which are not in the weights.
      decoder_heads: heads of the decoder.
      model_types: transformers' names of models with these keys, in their `config.json`; empty for other families.
      bare_positions: whether some files with a class token have positions of the patches only.
      fields: fields of the model that are not in the weights.
      objective: pretraining objective; empty if files of the family differ.
      fixed_positions: whether the published code computes its position embeddings, or does not train them.
      image_size: size of the images if neither the file nor its settings give it: it has no positions, or those of
        several frames, of which the first is used.
      antialias: whether the published code resamples positions with antialiasing.
      bands, mean, std: names of the channels and their normalisation, in the units of the images.
      default_bands: bands used if the user names none; empty for all.
      licence: licence of the published weights; does not apply to your own files.
    """

    name: str
    prefixes: tuple[str, ...]
    table: KeyTable
    unused: tuple[str, ...]
    norm_eps: float
    licence: str
    mixed: bool = False
    signature: str = ""
    by_name: bool = False
    absent: Mapping[str, float] = dataclasses.field(default_factory=dict)
    prepare: Callable[[Arrays, Acquisition], Arrays] | None = None
    takes: Mapping[str, bool] = dataclasses.field(default_factory=lambda: {"image_size": False})
    heads: Mapping[int, int] = dataclasses.field(default_factory=lambda: HEADS)
    decoder_heads: int = 16
    model_types: tuple[str, ...] = ()
    bare_positions: bool = False
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    objective: str = ""
    fixed_positions: bool = False
    image_size: int = 0
    antialias: bool = False
    bands: tuple[str, ...] = ("red", "green", "blue")
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    default_bands: tuple[str, ...] = ()

    def stripped(self, arrays: Arrays) -> Arrays | None:
        """The arrays without the family's prefix; None if the signature is not among them."""
        for prefix in self.prefixes:
            mine = {k.removeprefix(prefix): x for k, x in arrays.items() if self.mixed or k.startswith(prefix)}
            signed = self.signature in mine if self.signature else self._kernels(mine)
            if signed and self.key(mine, "encoder/blocks/mlp_in/kernel"):
                return mine
        return None

    def key(self, arrays: Arrays, path: str) -> str | None:
        """The first key whose array goes to a parameter."""
        return next(iter(self._keys(arrays, path)), None)

    def _keys(self, arrays: Arrays, path: str) -> list[str]:
        patterns = [expression(pattern) for pattern, place in self.table.items() if place.path == path]
        return [key for key in arrays if any(p.fullmatch(key) for p in patterns)]

    def normalisation(self, bands: tuple[str, ...]) -> DataConfig:
        """Mean and deviation of these bands; empty where one is not the family's."""
        if not bands or not set(bands) <= set(self.bands) or not self.mean:
            return DataConfig()
        order = [self.bands.index(band) for band in bands]
        return DataConfig(mean=tuple(self.mean[i] for i in order), std=tuple(self.std[i] for i in order))

    def _kernels(self, arrays: Arrays) -> list[str]:
        """Keys of the patch embedding, one for each group of bands."""
        return self._keys(arrays, "encoder/patch/kernel") or self._keys(arrays, "encoder/stem/patch/kernel")

    def channels(self, arrays: Arrays) -> int:
        """Channels of the patch embedding."""
        biases = self.key(arrays, "encoder/stem/patch/bias")
        if biases:  # every channel has its own
            return len(arrays[biases])
        kernel = arrays[self._kernels(arrays)[0]]
        return kernel.shape[1] if kernel.ndim > 2 else len(self.bands)

    def architecture(self, arrays: Arrays, settings: Settings, given: Acquisition) -> tuple[MAEConfig, Arrays]:
        """The model of the arrays, and the arrays that fill its parameters.

        Args:
          arrays: arrays of the file, without prefix.
          settings: settings from the files beside it.
          given: metadata of the images given by the user.

        Raises:
          UserError: values that are neither in the weights nor in the settings, settings of another model, or positions
            that we do not support.
        """
        given.check(self.name, self.takes)
        settings.check(self.model_types)
        if self.prepare:
            arrays = self.prepare(arrays, given)
        c = self._encoder(arrays, settings)
        biased = self.key(arrays, "encoder/blocks/qkv/bias") is not None
        if c.position == "none":
            settings.compare(c, False, biased, sized=False)
            return dataclasses.replace(c, image_size=given.image_size or self.image_size), arrays
        stored, grid = self.key(arrays, POSITIONS.path) is not None, self._grid(arrays, c, settings)
        arrays = self._with_positions(arrays, c, grid)
        position = "learned" if LEARNED in arrays else "sincos"
        fixed = LEARNED in arrays and (self.fixed_positions or is_computed(arrays[LEARNED]))
        c = dataclasses.replace(c, position=position, fixed_positions=fixed, image_size=grid * c.patch_size)
        decoder = self.key(arrays, "decoder/embed/kernel")
        if decoder:
            c = dataclasses.replace(
                c,
                decoder_width=arrays[decoder].shape[0],
                decoder_depth=len(self._keys(arrays, "decoder/blocks/mlp_out/kernel")),
                decoder_heads=settings.count("decoder_num_attention_heads") or self.decoder_heads,
                mask_ratio=settings.share("mask_ratio", c.mask_ratio),
                normalize_targets=settings.flag("norm_pix_loss", c.normalize_targets),
            )
            if key := self.key(arrays, DECODER_POSITIONS.path):
                arrays = without_fixed_positions(arrays, key, grid, c.decoder_width)
        settings.compare(c, decoder is not None, biased, stored)
        if given.image_size and given.image_size != c.image_size:
            arrays = resized_positions(arrays, given.grid(c.patch_size), self.antialias)
            c = dataclasses.replace(c, image_size=given.image_size)
        return c, arrays

    def _encoder(self, arrays: Arrays, settings: Settings) -> MAEConfig:
        """The encoder's configuration without its positions."""
        kernels = self._kernels(arrays)
        kernel, bands = arrays[kernels[0]], self.channels(arrays)
        outputs = self._keys(arrays, "encoder/blocks/mlp_out/kernel")
        width, mlp = arrays[outputs[0]].shape
        patch = kernel.shape[-1] if kernel.ndim > 2 else math.isqrt(kernel.shape[1] // bands)
        mixed = arrays[self.key(arrays, "encoder/blocks/attention_out/kernel") or ""].shape[1]
        heads = self._heads(settings, width, mixed)
        depth = len(outputs)
        hidden = sum(arrays[key].shape[0] for key in self._keys(arrays, "encoder/blocks/mlp_in/kernel")) // depth
        query = self.key(arrays, "encoder/stem/query/token")
        registers = self.key(arrays, "encoder/registers/token")
        fields = {
            "width": width,
            "bands": bands,
            "patch_size": patch,
            "depth": depth,
            "heads": heads,
            "head_dim": mixed // heads,
            "mlp": mlp,
            "gated": hidden == 2 * mlp,
            "groups": len(kernels),
            "channel_width": arrays[query].size if query else 0,
            "channel_heads": CHANNEL_HEADS if query else 0,
            "norm_eps": settings.share("layer_norm_eps", self.norm_eps),
            "class_token": self.key(arrays, "encoder/cls/token") is not None,
            "registers": arrays[registers].shape[-2] if registers else 0,
            "layer_scale": 1e-5 if self.key(arrays, "encoder/blocks/attention_scale/gain") else 0.0,
        }
        return MAEConfig(**(fields | dict(self.fields)))

    def _heads(self, settings: Settings, width: int, mixed: int) -> int:
        """Number of attention heads; `mixed` is their total width."""
        heads = settings.heads or settings.count("num_attention_heads") or self.heads.get(width, 0)
        if heads and mixed % heads == 0:
            return heads
        if settings.heads:
            raise UserError(f"--heads={heads}: must divide the {mixed} columns of attention; give another number")
        if settings.count("num_attention_heads"):
            raise settings.refuse("num_attention_heads", f"they do not divide the {mixed} columns of attention")
        raise UserError(f"--heads: is not in the weights (width {width}, heads {heads or None}); give --heads=NUMBER")

    def _grid(self, arrays: Arrays, c: MAEConfig, settings: Settings) -> int:
        """Side of the grid that the positions belong to."""
        positions = self.key(arrays, POSITIONS.path) or (LEARNED if LEARNED in arrays else None)
        if positions is None:
            raise UserError("--input: the file has no position embeddings; give another one, or its --from")
        if self.image_size:
            return grid_of_frames(positions, arrays[positions], c, settings.count("image_size") or self.image_size)
        return square_grid(positions, arrays[positions], c, self.bare_positions)

    def _with_positions(self, arrays: Arrays, c: MAEConfig, grid: int) -> Arrays:
        key = self.key(arrays, POSITIONS.path)
        token = self.key(arrays, "encoder/cls/token") if c.class_token else None
        return arrays if key is None else separate_positions(arrays, key, token, grid, c.width)


def timm_block(source: str, ours: str) -> dict[str, Place]:
    """The keys of one timm block, which most other families share."""
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
    """The keys of a plain timm ViT; `renamed` replaces the part before `.weight` and `.bias`, or a whole key."""
    names = {"patch": "patch_embed.proj", "norm": "norm", "cls": "cls_token", "position": "pos_embed"}
    names |= {"registers": "reg_token"} | renamed
    return {
        f"{names['patch']}.weight": Place("encoder/patch/kernel"),
        f"{names['patch']}.bias": Place("encoder/patch/bias"),
        names["cls"]: Place("encoder/cls/token"),
        names["registers"]: Place("encoder/registers/token"),
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
