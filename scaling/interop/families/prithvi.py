"""IBM and NASA's Prithvi-EO 1.0 (100M) and 2.0 (300M, 600M, with and without time and location), for one date.

The file has positions for several dates; with one date the model uses the first of them. Time (year and day of the
year) and location are added if they are given and the file has their scales; without them the model runs as published.
The epsilon of LayerNorm is that of the published code; terratorch 1.2 has 1e-5.
"""

import dataclasses

import numpy as np

from scaling.core.errors import UserError
from scaling.interop.acquisition import Acquisition
from scaling.interop.family import Family, plain_table, timm_block
from scaling.interop.generators import sincos
from scaling.interop.mapping import Arrays


def _prepare(arrays: Arrays, given: Acquisition) -> Arrays:
    """Adds time and place to the positions of all patches."""
    width = arrays["cls_token"].size
    added = np.zeros(width, np.float32)
    for name, values in (("temporal", _day(given)), ("location", given.location)):
        if not values:
            continue
        scale = arrays.get(f"{name}_embed_enc.scale")
        if scale is None:
            raise UserError(
                f"this file knows no {'time' if name == 'temporal' else 'location'}: it is of another model"
            )
        added += scale.reshape(()) * sincos(values, width // 2).reshape(-1)
    positions = np.array(arrays["pos_embed"], np.float32)
    positions[:, 1:] += added
    return arrays | {"pos_embed": positions}


def _day(given: Acquisition) -> tuple[float, ...]:
    if not given.time:
        return ()
    day = given.moment().timetuple()
    return day.tm_year, day.tm_yday


PRITHVI_V2 = Family(
    name="prithvi_v2",
    prefixes=("encoder.",),
    table=plain_table() | timm_block("blocks.{i}", "encoder/blocks"),
    unused=("temporal_embed_enc.scale", "location_embed_enc.scale"),
    norm_eps=1e-6,
    takes={"time": False, "location": False},
    prepare=_prepare,
    licence="Apache-2.0",
    objective="mae",
    fixed_positions=True,
    image_size=224,
    bands=("B02", "B03", "B04", "B8A", "B11", "B12"),  # reflectance x 10,000
    mean=(1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0),
    std=(2248.0, 2179.0, 2178.0, 1850.0, 1242.0, 1049.0),
)

PRITHVI_V1 = dataclasses.replace(
    PRITHVI_V2,
    name="prithvi_v1",
    prefixes=("",),
    takes={},
    prepare=None,
    unused=("decoder*", "mask_token"),
    mean=(775.0, 1081.0, 1229.0, 2497.0, 2204.0, 1611.0),
    std=(1282.0, 1270.0, 1399.0, 1368.0, 1292.0, 1155.0),
)
