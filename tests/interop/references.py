"""Tiny encoders of the published implementations with random weights, none of them zero or one. They need torch.

Each case gives the user's side: the file and images; and every token that the implementation computes from them.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

SEED = 0


@dataclasses.dataclass
class Reference:
    """One tiny model.

    Attributes:
      arrays: arrays of its file.
      bands, size: bands and size of its images.
      tokens: its output for normalised images [B, C, h, w].
      options: options of `import_weights` besides the path; others belong to `Acquisition`.
      settings: content of a `config.json` beside the file.
      exact: whether its arithmetic is float64 if requested.
    """

    model: torch.nn.Module
    arrays: dict[str, torch.Tensor]
    bands: int
    size: int
    tokens: Callable[[torch.Tensor], torch.Tensor]
    options: dict[str, Any]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    exact: bool = True

    def images(self, n: int = 2) -> np.ndarray:
        """[B, h, w, C], of few different values: they are recorded."""
        shape = (n, self.size, self.size, self.bands)
        return np.round(2 * np.random.default_rng(SEED).normal(size=shape)).astype(np.float32) / 2

    def expected(self, images: np.ndarray) -> np.ndarray:
        """[B, T, D]."""
        dtype = next(self.model.parameters()).dtype
        with torch.no_grad():
            return self.tokens(torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype)).numpy()


def drawn(model: torch.nn.Module) -> torch.nn.Module:
    """Random values everywhere, small enough that nothing saturates; their sums are exact in float32."""
    draw = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for x in model.parameters():
            fan = max(x.shape[-1] if x.ndim else 1, 16)
            values = 0.5 * torch.randn(x.shape, generator=draw) / fan**0.25 + 0.03
            x.copy_((torch.round(values * 64) + 0.5) / 64)
    return model.eval()


def timm_vit(**options: Any) -> Reference:
    from timm.models.vision_transformer import VisionTransformer

    fields = {"img_size": 24, "patch_size": 6, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 0}
    model = drawn(VisionTransformer(**(fields | options)))
    return Reference(model, model.state_dict(), 3, 24, model.forward_features, {"family": "timm_vit", "heads": 4})


def timm_giant() -> Reference:
    from timm.layers import SwiGLUPacked

    return timm_vit(mlp_layer=SwiGLUPacked, act_layer=torch.nn.SiLU, mlp_ratio=3.0, init_values=1e-5)


def hf_vit(**options: Any) -> Reference:
    from transformers import ViTConfig, ViTModel

    fields = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    c = ViTConfig(**(fields | options))
    c.image_size, c.patch_size, c.layer_norm_eps = 24, 6, 1e-6  # the usual 1e-12 would not show a wrong one
    model = drawn(ViTModel(c))
    settings = {"num_attention_heads": 4, "layer_norm_eps": c.layer_norm_eps}
    options = {"family": "hf_vit_mae"}
    return Reference(model, model.state_dict(), 3, 24, lambda x: model(x).last_hidden_state, options, settings)


def hf_dinov2(registers: bool = False, **options: Any) -> Reference:
    import transformers

    name = "Dinov2WithRegisters" if registers else "Dinov2"
    c = getattr(transformers, f"{name}Config")(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=24, patch_size=6, **options
    )
    model = drawn(getattr(transformers, f"{name}Model")(c))
    options = {"family": "hf_dinov2", "heads": 4}
    return Reference(model, model.state_dict(), 3, 24, lambda x: model(x).last_hidden_state, options)


def prithvi(version: int, frames: int, known: bool = False) -> Reference:
    """The file has the positions of several dates; the model sees one. `known`: with time and location."""
    from terratorch.models.backbones.prithvi_mae import PrithviMAE

    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    fields: dict[str, Any] = {"img_size": 224, "patch_size": (1, 16, 16), "in_chans": 6, "embed_dim": 32, "depth": 2}
    fields |= {"num_heads": 4, "decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 4, "norm_layer": norm}
    fields |= {"coords_encoding": ["time", "location"], "coords_scale_learn": True} if version == 2 else {}
    model = drawn(PrithviMAE(num_frames=1, **fields))
    stored = PrithviMAE(num_frames=frames, **fields).state_dict() | {
        key: x for key, x in model.state_dict().items() if "pos_embed" not in key
    }
    if version == 1:
        stored = {key.removeprefix("encoder.").replace("decoder.", ""): x for key, x in stored.items()}
    options = {"family": f"prithvi_v{version}", "heads": 4}
    if not known:
        return Reference(model, stored, 6, 224, lambda x: model.forward_features(x)[-1], options)

    def tokens(x: torch.Tensor) -> torch.Tensor:
        day, place = torch.tensor([[[2021.0, 196.0]]]), torch.tensor([[-33.9, 18.4]])
        return model.forward_features(x, day.expand(len(x), 1, 2), place.expand(len(x), 2))[-1]

    options |= {"time": "2021-07-15", "location": (-33.9, 18.4)}
    return Reference(model, stored, 6, 224, tokens, options, exact=False)


def terramind(modality: str, bands: int, gated: bool) -> Reference:
    from terratorch.models.backbones.terramind.model.terramind_vit import TerraMindViT
    from terratorch.models.backbones.terramind.model.tm_utils import LayerNorm

    fields: dict[str, Any] = {"img_size": 224, "patch_size": 16, "dim": 32, "encoder_depth": 2, "num_heads": 4}
    fields |= {f"{part}_bias": not gated for part in ("qkv", "proj", "mlp")}
    fields |= {"norm_layer": partial(LayerNorm, eps=1e-6, bias=False), "gated_mlp": gated}
    others = ["untok_dem@224"]  # that the file has and the encoder does not
    model = drawn(
        TerraMindViT(
            modalities=[modality, *others],
            act_layer=torch.nn.SiLU if gated else torch.nn.GELU,
            merge_method=None,
            **fields,
        )
    )
    family = {"untok_sen2l2a@224": "s2l2a", "untok_sen1grd@224": "s1grd", "untok_sen2l1c@224": "s2l1c"}[modality]
    options = {"family": f"terramind_{family}", "heads": 4}
    return Reference(model, model.state_dict(), bands, 224, lambda x: model({modality: x})[-1], options)


WAVELENGTHS = (664.6, 559.8, 492.4, 1613.7, 2202.4)


def dofa() -> Reference:
    from torchgeo.models import DOFA

    model = drawn(DOFA(img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=4, num_classes=0))

    def tokens(x: torch.Tensor) -> torch.Tensor:
        patches, _ = model.patch_embed(x, torch.tensor([w / 1000 for w in WAVELENGTHS]))
        cls = (model.cls_token + model.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([cls, patches + model.pos_embed[:, 1:]], dim=1)
        for block in model.blocks:
            x = block(x)
        return x

    arrays = {key: x for key, x in model.state_dict().items() if not key.startswith("fc_norm")}
    options = {"family": "dofa", "heads": 4, "wavelengths": WAVELENGTHS}
    return Reference(model, arrays, len(WAVELENGTHS), 16, tokens, options, exact=False)


def copernicus_fm(known: bool = False) -> Reference:
    """`known`: with place, time and area."""
    from torchgeo.models import CopernicusFM

    widths = (31.0, 36.0, 66.0, 91.0, 175.0)
    model = drawn(CopernicusFM(img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=4))
    kept: list[torch.Tensor] = []
    model.blocks[-1].register_forward_hook(lambda _, __, out: kept.append(out))

    def tokens(x: torch.Tensor) -> torch.Tensor:
        place = (18.4, -33.9, 18_823.0, (4 * 10 / 1000) ** 2) if known else (float("nan"),) * 4
        model(
            x,
            torch.tensor(place).repeat(len(x), 1),
            wavelengths=WAVELENGTHS,
            bandwidths=widths,
            input_mode="spectral",
            kernel_size=4,
        )
        return kept.pop()

    arrays = {key: x for key, x in model.state_dict().items() if not key.startswith("fc_norm")}
    options = {"family": "copernicus_fm", "heads": 4, "wavelengths": WAVELENGTHS, "bandwidths": widths}
    if known:
        options |= {"time": "2021-07-15", "location": (-33.9, 18.4), "resolution": 10.0}
    return Reference(model, arrays, len(WAVELENGTHS), 16, tokens, options, exact=False)


def clay() -> Reference:
    from terratorch.models.backbones.clay_v15.model import Encoder

    model = Encoder(mask_ratio=0.0, patch_size=4, shuffle=False, dim=32, depth=2, heads=4, dim_head=8, mlp_ratio=2)
    drawn(model)

    def tokens(x: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(len(x), 4, dtype=x.dtype)
        waves = torch.tensor([w / 1000 for w in WAVELENGTHS])
        one = {"time": zeros[:1], "latlon": zeros[:1], "gsd": torch.tensor(10.0), "waves": waves}
        return torch.cat([model({"pixels": image[None], **one})[0] for image in x])

    arrays = {f"model.encoder.{key}": x for key, x in model.state_dict().items()}
    options = {"family": "clay_v15", "heads": 4, "wavelengths": WAVELENGTHS, "resolution": 10.0, "image_size": 16}
    return Reference(model, {"state_dict": arrays}, len(WAVELENGTHS), 16, tokens, options, exact=False)


def scale_mae() -> Reference:
    from torchgeo.models import ScaleMAE

    model = drawn(ScaleMAE(res=3.0, img_size=24, patch_size=6, embed_dim=32, depth=2, num_heads=4, num_classes=0))
    options = {"family": "scale_mae", "heads": 4, "resolution": 3.0}
    return Reference(model, model.state_dict(), 3, 24, model.forward_features, options, exact=False)


def panopticon() -> Reference:
    from timm.models.vision_transformer import VisionTransformer
    from torchgeo.models.panopticon import PanopticonPE

    trunk = VisionTransformer(
        img_size=28, patch_size=14, embed_dim=32, depth=2, num_heads=4, num_classes=0, init_values=1e-5
    )
    stem = {"attn_dim": 96, "embed_dim": 32, "patch_size": 14, "img_size": 28}
    trunk.patch_embed = PanopticonPE(**stem, chnfus_cfg={"attn_cfg": {"num_heads": 16}})
    drawn(trunk)
    channels = (664.6, 492.4, -1.0, 1613.7, -7.0, -12.0)

    def tokens(x: torch.Tensor) -> torch.Tensor:
        ids = torch.tensor(channels).repeat(len(x), 1)
        return trunk.forward_features({"imgs": x, "chn_ids": ids})

    arrays = {f"model.{key}": x for key, x in trunk.state_dict().items()}
    options = {"family": "panopticon", "heads": 4, "wavelengths": channels}
    return Reference(trunk, arrays, len(channels), 28, tokens, options, exact=False)


def croma() -> Reference:
    from torchgeo.models.croma import ViT, get_2dalibi

    model = drawn(ViT(dim=32, depth=2, in_channels=12))
    bias = get_2dalibi(num_heads=16, num_patches=9)
    arrays = {"s2_encoder": model.state_dict(), "s2_GAP_FFN": {"0.weight": torch.ones(32)}}
    options = {"family": "croma_optical", "heads": 16, "image_size": 24}
    return Reference(model, arrays, 12, 24, lambda x: model(imgs=x, attn_bias=bias), options)


CASES: dict[str, Callable[[], Reference]] = {
    "timm": timm_vit,
    "timm LayerScale and registers": partial(timm_vit, init_values=1e-5, reg_tokens=4, no_embed_class=True),
    "timm SwiGLU": timm_giant,
    "transformers ViT": hf_vit,
    "transformers DINOv2": hf_dinov2,
    "transformers DINOv2 with registers": partial(hf_dinov2, registers=True),
    "transformers DINOv2 SwiGLU": partial(hf_dinov2, use_swiglu_ffn=True),
    "Prithvi 1": partial(prithvi, 1, 3),
    "Prithvi 2": partial(prithvi, 2, 2),
    "Prithvi 2 with time and location": partial(prithvi, 2, 2, known=True),
    "TerraMind base, Sentinel-2": partial(terramind, "untok_sen2l2a@224", 12, gated=True),
    "TerraMind base, Sentinel-1": partial(terramind, "untok_sen1grd@224", 2, gated=True),
    "TerraMind tiny, Sentinel-1": partial(terramind, "untok_sen1grd@224", 2, gated=False),
    "DOFA": dofa,
    "Copernicus-FM": copernicus_fm,
    "Copernicus-FM with place, time and area": partial(copernicus_fm, known=True),
    "Clay": clay,
    "Scale-MAE": scale_mae,
    "CROMA": croma,
    "Panopticon": panopticon,
}
