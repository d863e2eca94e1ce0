"""The named architectures: plain ones by their sizes, and the public models that checkpoints are imported into.

Sizes of the sequential ones: google-research/big_vision `models/vit.py`; of the parallel ones: Cha et al. (2304.05215),
by parameter counting. That paper does not state the heads of H12x4 and G12x4; the head size 64 of B and L is assumed.
`vit_22b` has the sizes of Dehghani et al. (2302.05442); `vit_6b` is our own, with two thirds of its width and depth.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from scaling.core.errors import UserError
from scaling.models.config import ViTConfig
from scaling.models.parameters import abstract_params
from scaling.models.stems.channels import panopticon
from scaling.models.stems.stem import Stem
from scaling.models.stems.wavelengths import copernicus_fm, dofa
from scaling.models.vit import ViT, image_input

# name: width, depth, mlp, heads, head_dim, branches, patch_size
VARIANTS = {
    "vit_ti": (192, 12, 768, 3, 64, 1, 16),
    "vit_s": (384, 12, 1536, 6, 64, 1, 16),
    "vit_b": (768, 12, 3072, 12, 64, 1, 16),
    "vit_l": (1024, 24, 4096, 16, 64, 1, 16),
    "vit_so400m": (1152, 27, 4304, 16, 72, 1, 14),
    "vit_h": (1280, 32, 5120, 16, 80, 1, 14),
    "vit_g": (1408, 40, 6144, 16, 88, 1, 14),
    "vit_gg": (1664, 48, 8192, 16, 104, 1, 14),
    "vit_b12x1": (768, 12, 3072, 12, 64, 1, 16),
    "vit_l12x4": (1024, 12, 4096, 16, 64, 4, 16),
    "vit_h12x4": (1536, 12, 6144, 24, 64, 4, 16),
    "vit_g12x4": (2048, 12, 8192, 32, 64, 4, 16),
    "vit_6b": (4096, 32, 16384, 32, 128, 1, 14),
    "vit_22b": (6144, 48, 24576, 48, 128, 1, 14),
}
FIELDS = ("width", "depth", "mlp", "heads", "head_dim", "branches", "patch_size")

ALIASES = {"mae_vit_base": "vit_b", "mae_vit_large": "vit_l", "mae_vit_huge": "vit_h"}


def encoder(name: str, **overrides: Any) -> ViTConfig:
    """The encoder of a plain architecture, with any field overridden.

    Raises:
      UserError: no such name; the message lists the names.
    """
    key = ALIASES.get(name, name)
    if key not in VARIANTS:
        raise UserError(f"unknown model {name!r}; the models are {', '.join([*VARIANTS, *ALIASES])}")
    return ViTConfig(**{**dict(zip(FIELDS, VARIANTS[key], strict=True)), **overrides})


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A named model: its configuration, and properties that no field expresses.

    Attributes:
      config: the encoder.
      make_stem: makes the stem of a model whose patch embedding is not one matrix. A tubelet of one frame (Prithvi) is
        one matrix.
      explicit_attention: networks whose attention products `published` counts; see the function of that name.
    """

    config: ViTConfig
    make_stem: Callable[[ViTConfig], Stem] | None = None
    explicit_attention: tuple[str, ...] = ()

    @property
    def stem(self) -> Stem | None:
        return self.make_stem and self.make_stem(self.config)


def _dinov2(**overrides: Any) -> ViTConfig:
    return encoder("vit_b", patch_size=14, position="learned", layer_scale=1e-5, **overrides)


def _terramind(name: str, mlp: int) -> ViTConfig:
    return encoder(name, mlp=mlp, bands=12, gated=True, class_token=False)


# Networks (see `scaling.axes.split`; empty for the encoder) whose published code multiplies queries, keys and values
# itself instead of calling a fused attention, by the beginning of the family's name. Counters that trace operations see
# the attention products of these networks only: the convention `published`.
_EXPLICIT_ATTENTION = {"terramind": ("",), "panopticon": ("channel",)}


def explicit_attention(family: str) -> tuple[str, ...]:
    """The networks of a family of checkpoints that multiply queries, keys and values themselves; see `Architecture`."""
    return next((networks for name, networks in _EXPLICIT_ATTENTION.items() if family.startswith(name)), ())


# The public models (sizes from timm, torchgeo and terratorch), with the bands and the image size that they are fed with
# in arXiv 2601.22841; DINOv2 with its own. `position="sincos"` is said of every fixed encoding: it has no parameters,
# and comes with the checkpoint, because its layout differs between families. An embedding of the class token's position
# is part of that token, TerraMind's embedding of the modality is the bias of its patches, and the biases that TerraMind
# does not have are zero.
PUBLIC = {
    "dinov2_base": Architecture(_dinov2(image_size=518)),
    "dofa_base": Architecture(encoder("vit_b", bands=10), dofa),
    "dofa_large": Architecture(encoder("vit_l", bands=10), dofa),
    "prithvi_eo_v2_300": Architecture(encoder("vit_l", bands=6)),
    "prithvi_eo_v2_600": Architecture(encoder("vit_h", bands=6)),
    "terramind_v1_base": Architecture(_terramind("vit_b", 2048), explicit_attention=explicit_attention("terramind")),
    "terramind_v1_large": Architecture(_terramind("vit_l", 2730), explicit_attention=explicit_attention("terramind")),
    "ssl4eo_s12_vits16_moco": Architecture(encoder("vit_s", bands=13)),
    "ssl4eo_s12_vits16_dino": Architecture(encoder("vit_s", bands=13, position="learned")),
    "panopticon_vitb14": Architecture(_dinov2(bands=13), panopticon, explicit_attention("panopticon")),
    "copernicus_fm_base": Architecture(encoder("vit_b", bands=13, norm_eps=1e-5), copernicus_fm),
}


def architecture(name: str, **overrides: Any) -> Architecture:
    """A named model with fields of its configuration overridden, of `PUBLIC` or a plain one.

    Raises:
      UserError: no such name; the message lists the names.
    """
    if name in PUBLIC:
        return dataclasses.replace(PUBLIC[name], config=dataclasses.replace(PUBLIC[name].config, **overrides))
    if name not in VARIANTS | ALIASES:
        raise UserError(f"unknown model {name!r}; the models are {', '.join([*VARIANTS, *ALIASES, *PUBLIC])}")
    return Architecture(encoder(name, **overrides))


def abstract_model(a: Architecture) -> tuple[Any, Any]:
    """Shapes and axis names of all parameters, those of the network `encoder`; see `abstract_params`.

    The parameters of a stem are the group `stem` of the encoder, in the place of `patch`.
    """
    c = a.config
    shapes, names = ({"encoder": dict(tree)} for tree in abstract_params(ViT(c), image_input(c)))
    if a.stem:
        for whole, stem in zip((shapes, names), a.stem.abstract_params(), strict=True):
            del whole["encoder"]["patch"]
            whole["encoder"]["stem"] = stem
    return shapes, names
