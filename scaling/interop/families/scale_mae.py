"""Scale-MAE (Reed et al., 2212.14532): a plain ViT with positions in metres. The positions in the file are not used."""

import math

import numpy as np

from scaling.interop.acquisition import Acquisition
from scaling.interop.family import Family, plain_table, timm_block
from scaling.interop.mapping import Arrays
from scaling.interop.positions import LEARNED
from scaling.models.positions import sincos_2d


def _prepare(arrays: Arrays, given: Acquisition) -> Arrays:
    width, patch = arrays["pos_embed"].shape[-1], arrays["patch_embed.proj.weight"].shape[-1]
    stored = math.isqrt(arrays["pos_embed"].size // width)
    grid = given.grid(patch) or stored
    rest = {key: np.asarray(x) for key, x in arrays.items() if key != "pos_embed"}
    return rest | {LEARNED: sincos_2d(grid, grid, width, given.resolution)}


SCALE_MAE = Family(
    name="scale_mae",
    prefixes=("", "model."),
    by_name=True,
    table=plain_table() | timm_block("blocks.{i}", "encoder/blocks"),
    unused=("head.*", "decoder*", "mask_token", "fpn*"),
    prepare=_prepare,
    takes={"resolution": True, "image_size": False},
    norm_eps=1e-6,
    licence="CC-BY-NC 4.0",
    objective="scale_mae",
    fixed_positions=True,
)
