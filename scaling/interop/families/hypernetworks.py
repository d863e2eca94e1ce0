"""DOFA, Copernicus-FM and Clay 1.5: a network generates the patch embedding once, from the given wavelengths.

DOFA's and Copernicus-FM's files have no final norm: that of the pooled features keeps its initial values (torchgeo). If
place, time and resolution are not given, Copernicus-FM uses learned tokens instead, and Clay zeros.
"""

import dataclasses
import datetime
import math

import numpy as np

from scaling.interop import generators
from scaling.interop.acquisition import Acquisition
from scaling.interop.family import Family, plain_table, timm_block
from scaling.interop.generators import WIDTH, as_convolution, fourier, generate, without
from scaling.interop.mapping import Arrays, Place
from scaling.interop.positions import LEARNED

_WEIGHT, _BIAS = "patch_embed.proj.weight", "patch_embed.proj.bias"


def _dofa(arrays: Arrays, given: Acquisition) -> Arrays:
    network, rest = without(arrays, "patch_embed.")
    kernels, bias = generate(network, generators.sincos(given.wavelengths, WIDTH))
    return rest | {_WEIGHT: 0.01 * as_convolution(kernels, bias, pixels_first=True), _BIAS: 0.01 * bias}


DOFA = Family(
    name="dofa",
    prefixes=("",),
    signature="patch_embed.weight_generator.fc_weight.weight",
    table=plain_table() | timm_block("blocks.{i}", "encoder/blocks"),
    unused=("head.*", "fc_norm.*", "norm.*", "projector.*", "mask_token"),
    prepare=_dofa,
    takes={"wavelengths": True, "bands": False},
    fields={"patch_offset": 1, "final_norm": "pooled"},
    norm_eps=1e-6,
    licence="CC-BY-4.0 (not verified)",
    objective="dofa",
    fixed_positions=True,
    bands=(),
    mean=(),
    std=(),
)


def _copernicus(arrays: Arrays, given: Acquisition) -> Arrays:
    network, rest = without(arrays, "patch_embed_spectral.")
    encoded = fourier(given.wavelengths, WIDTH, 100, 1e9)
    kernels, bias = generate(network, encoded + fourier(given.bandwidths, WIDTH, 1, 1e9))
    patch = math.isqrt(len(network["weight_generator.fc_weight.bias"]) // len(bias))
    known = _metadata(given, patch, len(bias))
    added = sum(
        known.get(what, arrays[f"{what}_token"]).reshape(-1) @ arrays[f"{what}_fc.weight"].T + arrays[f"{what}_fc.bias"]
        for what in ("coord", "scale", "time")
    )
    rest |= {_WEIGHT: 0.01 * as_convolution(kernels, bias, pixels_first=True), _BIAS: 0.01 * bias}
    return rest | {"pos_embed": arrays["pos_embed"] + np.asarray(added)}


def _metadata(given: Acquisition, patch: int, width: int) -> dict[str, np.ndarray]:
    """Encodings of the known metadata: longitude and latitude, days since 1970, square kilometres of a patch. Each [D].

    Degrees are float32, as in the published code: relative to the shortest period, 0.0001 degrees, rounding is visible.
    """
    known = {}
    if given.location:
        latitude, longitude = np.asarray(given.location, np.float32)
        halves = (fourier([x], width // 2, 1e-4, 720) for x in (longitude + 180, latitude + 90))
        known["coord"] = np.concatenate(list(halves), axis=1)
    if given.time:
        days = (given.moment().replace(tzinfo=None) - datetime.datetime(1970, 1, 1)).days
        known["time"] = fourier([days], width, 1, 365.25)
    if given.resolution:
        known["scale"] = fourier([np.float32((patch * given.resolution / 1000) ** 2)], width, 1e-3, 5.1e8)
    return known


COPERNICUS_FM = dataclasses.replace(
    DOFA,
    name="copernicus_fm",
    prefixes=("", "model."),
    signature="patch_embed_spectral.weight_generator.fc_weight.weight",
    unused=(*DOFA.unused, "patch_embed_variable.*", *(f"{what}_*" for what in ("coord", "scale", "time"))),
    prepare=_copernicus,
    takes={"wavelengths": True, "bandwidths": True} | dict.fromkeys(("bands", "location", "time", "resolution"), False),
    norm_eps=1e-5,
    licence="CC-BY-4.0",
    objective="copernicus_fm",
)


def _clay(arrays: Arrays, given: Acquisition) -> Arrays:
    network, rest = without(arrays, "patch_embedding.")
    micrometres = [nanometres / 1000 for nanometres in given.wavelengths]
    encoded = generators.sincos(micrometres, WIDTH, last=True)
    kernels, bias = generate(network, encoded, ("l1", "l2"), generators.gelu, "encoder.layers.0")
    kernel = 0.02 * as_convolution(kernels, bias, pixels_first=False)
    positions = _clay_positions(given.grid(kernel.shape[-1]), len(bias), given.resolution)
    positions[:, -8:] = _clay_metadata(given)
    return rest | {_WEIGHT: kernel, _BIAS: bias, LEARNED: positions}


def _clay_metadata(given: Acquisition) -> np.ndarray:
    """[sin, cos] of week, hour, latitude and longitude as angles; zero for unknown values."""
    angles: list[float | None] = [None] * 4
    if given.time:
        moment = given.moment()
        angles[:2] = 2 * math.pi * moment.isocalendar().week / 52, 2 * math.pi * moment.hour / 24
    if given.location:
        angles[2:] = (math.radians(x) for x in given.location)
    return np.array([0.0 if a is None else f(a) for a in angles for f in (math.sin, math.cos)], np.float32)


def _clay_positions(grid: int, width: int, resolution: float) -> np.ndarray:
    """[x | y] sin-cos in all channels except the last eight, which hold time and place. float32 [grid * grid,
    width].
    """
    steps = (width - 8) // 4
    exponent = np.arange(steps, dtype=np.float32) / np.float32(steps - 1) * np.float32(2 / (width - 8))
    frequency = resolution / np.float32(10_000) ** exponent
    y, x = (axis.reshape(-1, 1) * frequency for axis in np.meshgrid(np.arange(grid), np.arange(grid), indexing="ij"))
    parts = [np.sin(x), np.cos(x), np.sin(y), np.cos(y), np.zeros((grid**2, 8))]
    return np.concatenate(parts, axis=1).astype(np.float32)


_CLAY_BLOCK = {
    "0.norm.weight": "attention_norm/scale",
    "0.norm.bias": "attention_norm/bias",
    "0.to_qkv.weight": "qkv/kernel",
    "0.to_out.weight": "attention_out/kernel",
    "1.net.0.weight": "mlp_norm/scale",
    "1.net.0.bias": "mlp_norm/bias",
    "1.net.1.weight": "mlp_in/kernel",
    "1.net.1.bias": "mlp_in/bias",
    "1.net.3.weight": "mlp_out/kernel",
    "1.net.3.bias": "mlp_out/bias",
}

CLAY = Family(
    name="clay_v15",
    prefixes=("state_dict.model.encoder.", "model.encoder.", "encoder.", ""),
    signature="patch_embedding.weight_generator.fc_weight.weight",
    table=plain_table(norm="transformer.norm")
    | {f"transformer.layers.{{i}}.{key}": Place(f"encoder/blocks/{path}") for key, path in _CLAY_BLOCK.items()},
    unused=(),
    absent={"encoder/blocks/qkv/bias": 0.0, "encoder/blocks/attention_out/bias": 0.0},
    prepare=_clay,
    takes=dict.fromkeys(("wavelengths", "resolution", "image_size"), True)
    | dict.fromkeys(("bands", "time", "location"), False),
    norm_eps=1e-5,
    licence="Apache-2.0",
    objective="clay",
    fixed_positions=True,
    bands=(),
    mean=(),
    std=(),
)

HYPERNETWORKS = (DOFA, COPERNICUS_FM, CLAY)
