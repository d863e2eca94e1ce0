"""NASA Harvest's Galileo, for one date of Sentinel-2, Sentinel-1 and NDVI: any of its groups of bands, each of which
makes a token of its own from every patch.

The position embedding has one quarter each for the group, the date, the month and the place (single_file_galileo.py of
nasaharvest/galileo). Images are shifted to mean - 2 deviations and divided by 4 deviations (its Normalizer), except
NDVI.
"""

import numpy as np

from scaling.core.errors import UserError
from scaling.interop.acquisition import Acquisition
from scaling.interop.families.grouped import group_table, split_attention_table, spread
from scaling.interop.family import Family, timm_block
from scaling.interop.mapping import Arrays, Place
from scaling.interop.positions import LEARNED
from scaling.models.resampling import resize_kernel

GROUPS = {
    "S1": ("VV", "VH"),
    "S2_RGB": ("B02", "B03", "B04"),
    "S2_Red_Edge": ("B05", "B06", "B07"),
    "S2_NIR_10m": ("B08",),
    "S2_NIR_20m": ("B8A",),
    "S2_SWIR": ("B11", "B12"),
    "NDVI": ("NDVI",),
}
_BANDS = tuple(band for bands in GROUPS.values() for band in bands)
_SENTINEL_2 = tuple(band for band in _BANDS if band.startswith("B"))
_RESOLUTION = 10.0  # metres per pixel in its training

# band: mean and deviation, from its normalization.json
STATISTICS = {
    "VV": (-11.7287, 4.8871),
    "VH": (-18.8556, 5.7303),
    "B02": (1395.3409, 917.7041),
    "B03": (1338.4027, 913.2988),
    "B04": (1343.0988, 1092.6787),
    "B05": (1543.8608, 1047.2206),
    "B06": (2186.2022, 1048.0102),
    "B07": (2525.0933, 1143.6903),
    "B08": (2410.3377, 1098.9792),
    "B8A": (2750.2855, 1204.4728),
    "B11": (2234.9111, 1145.9774),
    "B12": (1474.5311, 980.2430),
}


def _prepare(arrays: Arrays, given: Acquisition) -> Arrays:
    bands = given.bands or _SENTINEL_2
    chosen = [name for name, group in GROUPS.items() if set(group) <= set(bands)]
    covered = [band for name in chosen for band in GROUPS[name]]
    if sorted(covered) != sorted(bands):
        groups = "; ".join(", ".join(group) for group in GROUPS.values())
        raise UserError(f"--bands={','.join(bands)}: galileo takes whole groups of {groups}")
    arrays = {key.replace(".backbone", ""): x for key, x in arrays.items()}
    patch = given.patch_size or arrays["space_time_embed.S2_RGB.proj.weight"].shape[-1]
    place = _places(given.grid(patch), arrays["pos_embed"].shape[1], patch, given.resolution or _RESOLUTION)
    rest = {key: x for key, x in arrays.items() if key.startswith(("blocks.", "norm."))}
    positions = []
    for i, name in enumerate(chosen):
        kernel = resize_kernel(arrays[f"space_time_embed.{name}.proj.weight"], patch)
        kernel = spread(kernel, [bands.index(band) for band in GROUPS[name]], len(bands))
        rest |= {f"group.{i}.weight": kernel, f"group.{i}.bias": arrays[f"space_time_embed.{name}.proj.bias"]}
        group = arrays["s_t_channel_embed"][list(GROUPS).index(name)]
        fixed = np.concatenate([group, arrays["pos_embed"][0], arrays["month_embed.weight"][given.moment().month - 1]])
        positions.append(np.concatenate([np.tile(fixed, (len(place), 1)), place], axis=1))
    return rest | {LEARNED: np.concatenate(positions)}


def _places(grid: int, width: int, patch: int, resolution: float) -> np.ndarray:
    """[x | y] sin-cos embedding of the place of each token in units of 10 m. The exponents are i / width / 2, a
    slip in the published code that the weights were trained with. [grid * grid, width].
    """
    half = width // 2
    frequency = np.float32(1) / np.float32(10_000) ** (np.arange(half // 2, dtype=np.float32) / half / 2)
    y, x = np.meshgrid(np.arange(grid), np.arange(grid), indexing="ij")
    scaled = (axis.reshape(-1, 1) * np.float32(patch * resolution / _RESOLUTION) * frequency for axis in (x, y))
    return np.concatenate([f(angle) for angle in scaled for f in (np.sin, np.cos)], axis=1)


GALILEO = Family(
    name="galileo",
    prefixes=("",),
    signature="space_time_embed.S2_RGB.proj.weight",
    table=timm_block("blocks.{i}", "encoder/blocks")
    | split_attention_table("blocks.{i}")
    | group_table(len(GROUPS))
    | {"norm.weight": Place("encoder/norm/scale"), "norm.bias": Place("encoder/norm/bias")},
    unused=(),
    prepare=_prepare,
    takes={"image_size": True, "time": True, "patch_size": False, "resolution": False, "bands": False},
    heads={128: 8, 192: 3, 768: 12},
    norm_eps=1e-5,
    licence="MIT",
    objective="galileo",
    fixed_positions=True,  # except the part of each group, which is a bias of its patches
    bands=_BANDS,
    default_bands=_SENTINEL_2,
    mean=(*(mean - 2 * std for mean, std in STATISTICS.values()), 0.0),
    std=(*(4 * std for _, std in STATISTICS.values()), 1.0),
)
