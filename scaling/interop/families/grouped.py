"""Encoders in which each group of bands makes its own tokens: SatMAE for Sentinel-2 (Cong et al., 2207.08051) and
SpectralGPT (Hong et al., 2311.07113), which calls three neighbouring bands a frame.

Keys and order of the tokens: `models_vit_group_channels.py` of sustainlab-group/SatMAE and `models_vit_tensor.py` of
danfenghong/IEEE_TPAMI_SpectralGPT.
"""

import numpy as np

from scaling.interop.acquisition import Acquisition
from scaling.interop.family import Family, plain_table, timm_block
from scaling.interop.mapping import Arrays, Place
from scaling.interop.positions import LEARNED

_L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
_SATMAE_GROUPS = ((0, 1, 2, 6), (3, 4, 5, 7), (8, 9))  # among its ten bands


def group_table(groups: int) -> dict[str, Place]:
    """Keys of kernels that are spread over all bands (`spread`), and of the positions of all groups."""
    table = {LEARNED: Place("encoder/position/embedding")}
    for i in range(groups):
        table[f"group.{i}.weight"] = Place("encoder/patch/kernel", ("groups", i))
        table[f"group.{i}.bias"] = Place("encoder/patch/bias", ("groups", i))
    return table


def split_attention_table(source: str) -> dict[str, Place]:
    """Keys of queries, keys and values stored as separate layers."""
    kinds = (("weight", "kernel"), ("bias", "bias"))
    return {
        f"{source}.attn.{name}.{kind}": Place(f"encoder/blocks/qkv/{ours}", ("qkv", i))
        for i, name in enumerate("qkv")
        for kind, ours in kinds
    }


def spread(kernel: np.ndarray, channels: list[int], bands: int) -> np.ndarray:
    """A kernel of a subset of channels as one of all bands, zero for the others. [D, C, p, p] -> [D, bands, p, p]."""
    whole = np.zeros((len(kernel), bands, *kernel.shape[2:]), np.float32)
    whole[:, channels] = kernel
    return whole


def _satmae(arrays: Arrays, given: Acquisition) -> Arrays:
    del given
    places, channels = arrays["pos_embed"][0], arrays["channel_embed"][0]  # [1 + T, D - C], [J, C]
    rest = {key: x for key, x in arrays.items() if not key.startswith(("patch_embed", "pos_embed", "channel_"))}
    for i, group in enumerate(_SATMAE_GROUPS):
        kernel = spread(arrays[f"patch_embed.{i}.proj.weight"], list(group), len(SATMAE.bands))
        rest |= {f"group.{i}.weight": kernel, f"group.{i}.bias": arrays[f"patch_embed.{i}.proj.bias"]}
    own = arrays.get("channel_cls_embed", np.zeros(channels.shape[1])).reshape(-1)  # missing in pretraining checkpoints
    rest["cls_token"] = arrays["cls_token"].reshape(-1) + np.concatenate([places[0], own])
    positions = [np.concatenate([places[1:], np.tile(row, (len(places) - 1, 1))], axis=1) for row in channels]
    return rest | {LEARNED: np.concatenate(positions)}


SATMAE = Family(
    name="satmae_groups",
    prefixes=("model.", ""),
    signature="patch_embed.2.proj.weight",
    table=plain_table() | timm_block("blocks.{i}", "encoder/blocks") | group_table(len(_SATMAE_GROUPS)),
    unused=("decoder*", "mask_token", "head.*", "fc_norm.*", "proj_up_*", "up_block*"),
    prepare=_satmae,
    takes={},
    norm_eps=1e-6,
    licence="CC-BY-NC 4.0 (SatMAE), Apache-2.0 (SatMAE++)",
    objective="mae",
    bands=("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
    mean=(),
    std=(),
)


def _spectral_gpt(arrays: Arrays, given: Acquisition) -> Arrays:
    del given
    kernel = arrays["patch_embed.proj.weight"][:, 0]  # [D, bands of a group, p, p]
    places, frames = arrays["pos_embed_spatial"][0], arrays["pos_embed_temporal"][0]  # [T, D], [J, D]
    rest = {key: x for key, x in arrays.items() if key.startswith(("blocks.", "norm."))}
    size = kernel.shape[1]
    for i in range(len(frames)):
        channels = list(range(size * i, size * (i + 1)))
        rest[f"group.{i}.weight"] = spread(kernel, channels, size * len(frames))
        rest[f"group.{i}.bias"] = arrays["patch_embed.proj.bias"]
    return rest | {LEARNED: (frames[:, None] + places).reshape(-1, places.shape[1])}


SPECTRAL_GPT = Family(
    name="spectral_gpt",
    prefixes=("model.", ""),
    signature="pos_embed_temporal",
    table=timm_block("blocks.{i}", "encoder/blocks")
    | split_attention_table("blocks.{i}")
    | group_table(len(_L2A) // 3)
    | {"norm.weight": Place("encoder/norm/scale"), "norm.bias": Place("encoder/norm/bias")},
    unused=(),
    prepare=_spectral_gpt,
    takes={},
    norm_eps=1e-6,
    licence="GPL-3 (code)",
    objective="mae",
    bands=_L2A,
    mean=(),
    std=(),
)
