"""Panopticon (Waldmann et al., 2503.10845): attention over any channels, followed by a DINOv2 trunk (torchgeo 0.8.1).

Each channel is given by its wavelength in nanometres, or -1 to -12 for the radar channels in the order of the published
code (VV, VH, HH, HV; without orbit, ascending, descending).
"""

import numpy as np

from scaling.interop import generators
from scaling.interop.acquisition import Acquisition
from scaling.interop.family import Family, plain_table, timm_block
from scaling.interop.mapping import Arrays, Place

_EMBEDDINGS = "patch_embed.chnfus.chnemb."
_TRANSMIT, _RECEIVE = (0, 0, 1, 1), (0, 1, 1, 0)  # of the radar channels; 0 is V, 1 is H


def _prepare(arrays: Arrays, given: Acquisition) -> Arrays:
    rows, rest = generators.without(arrays, _EMBEDDINGS)
    bias = rest.pop("patch_embed.conv3d.conv3d.bias")
    encoded = [_encoding(rows, channel, len(bias)) for channel in given.wavelengths]
    return rest | {"channels": np.stack(encoded) + bias}


def _encoding(rows: Arrays, channel: float, width: int) -> np.ndarray:
    if channel >= 0:
        return generators.sincos([channel // 1], width)[0]  # whole nanometres
    orbit, polarisation = divmod(round(-channel) - 1, 4)
    orbits = np.stack([rows["embed_orbit"].mean(0), *rows["embed_orbit"]])
    parts = rows["embed_transmit"][_TRANSMIT[polarisation]], rows["embed_receive"][_RECEIVE[polarisation]]
    return np.concatenate([*parts, orbits[orbit]])


PANOPTICON = Family(
    name="panopticon",
    prefixes=("model.", ""),
    signature="patch_embed.conv3d.conv3d.weight",
    table={
        **plain_table(patch="no plain patch embedding"),
        **timm_block("blocks.{i}", "encoder/blocks"),
        "patch_embed.conv3d.conv3d.weight": Place("encoder/stem/patch/kernel"),
        "channels": Place("encoder/stem/patch/bias"),
        "patch_embed.chnfus.query": Place("encoder/stem/query/token"),
        "patch_embed.chnfus.xattn.inproj_k.weight": Place("encoder/stem/key_value/kernel", ("channel/qkv", 0)),
        "patch_embed.chnfus.xattn.inproj_v.weight": Place("encoder/stem/key_value/kernel", ("channel/qkv", 1)),
        "patch_embed.proj.weight": Place("encoder/stem/out/kernel"),
        "patch_embed.proj.bias": Place("encoder/stem/out/bias"),
    },
    unused=("mask_token", "head.*"),
    prepare=_prepare,
    takes={"wavelengths": True, "bands": False, "image_size": False},
    antialias=True,
    norm_eps=1e-6,
    licence="Apache-2.0 (not verified)",
    objective="dinov2",
    bands=(),
    mean=(),
    std=(),
)
