"""CROMA (Fuller et al., 2311.00566): its optical encoder, without the network after the pooled features.

Heads use distances between patches instead of positions; there are sixteen heads at every width (torchgeo 0.8.1). The
twelve bands are those of Sentinel-2 level 2A.
"""

import math

import numpy as np

from scaling.interop.acquisition import Acquisition
from scaling.interop.family import Family
from scaling.interop.mapping import Arrays, Place

_HEADS = 16
_SLOPES = 2.0 ** (-8 * np.arange(1, _HEADS + 1) / _HEADS)

_LINEAR = {"0.to_out": "attention_out", "1.net.0": "mlp_in", "1.net.3": "mlp_out"}
_NORMS = {"0.input_norm": "attention_norm", "1.input_norm": "mlp_norm"}


def _prepare(arrays: Arrays, given: Acquisition) -> Arrays:
    """Reorders patches, which are channel by channel in the file, as in a convolution; adds the slopes, which are
    not in it.
    """
    del given
    matrix = arrays["linear_input.weight"]
    side = math.isqrt(matrix.shape[1] // len(CROMA.bands))
    kernel = matrix.reshape(len(matrix), len(CROMA.bands), side, side)
    depth = sum(key.endswith("to_qkv.weight") for key in arrays)
    return arrays | {"linear_input.weight": kernel} | {f"slopes.{i}": _SLOPES for i in range(depth)}


def _table() -> dict[str, Place]:
    block = {"0.to_qkv.weight": "qkv/kernel"}
    for module, group in _LINEAR.items():
        block |= {f"{module}.weight": f"{group}/kernel", f"{module}.bias": f"{group}/bias"}
    for module, group in _NORMS.items():
        block |= {f"{module}.weight": f"{group}/scale", f"{module}.bias": f"{group}/bias"}
    return {
        "linear_input.weight": Place("encoder/patch/kernel"),
        "linear_input.bias": Place("encoder/patch/bias"),
        "transformer.norm_out.weight": Place("encoder/norm/scale"),
        "transformer.norm_out.bias": Place("encoder/norm/bias"),
        "slopes.{i}": Place("encoder/blocks/alibi/slope"),
        **{f"transformer.layers.{{i}}.{key}": Place(f"encoder/blocks/{path}") for key, path in block.items()},
    }


CROMA = Family(
    name="croma_optical",
    prefixes=("s2_encoder.",),
    table=_table(),
    unused=(),
    absent={"encoder/blocks/qkv/bias": 0.0},
    prepare=_prepare,
    fields={"alibi": True, "position": "none"},
    image_size=120,
    heads={768: _HEADS, 1024: _HEADS},
    norm_eps=1e-5,
    licence="MIT",
    objective="croma",
    bands=("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
    mean=(),
    std=(),
)
