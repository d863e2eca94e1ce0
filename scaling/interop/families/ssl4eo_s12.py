"""SSL4EO-S12 (MAE, MoCo, DINO) as torchgeo publishes it, and SoftCon, with timm's keys: thirteen bands of Sentinel-2
level 1C. A file may lack the final norm.

Images are reflectances x 10,000; SSL4EO-S12 divides by 10,000, SoftCon standardises (torchgeo's transforms).
"""

import dataclasses

from scaling.interop.family import Family, plain_table, timm_block

_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")

SSL4EO_S12 = Family(
    name="ssl4eo_s12",
    prefixes=("",),
    table=plain_table() | timm_block("blocks.{i}", "encoder/blocks"),
    unused=("head.*", "fc_norm.*"),
    norm_eps=1e-6,
    antialias=True,
    absent={"encoder/norm/scale": 1.0, "encoder/norm/bias": 0.0},
    licence="CC-BY-4.0 (not verified)",
    bands=_BANDS,
    mean=(0.0,) * len(_BANDS),
    std=(10_000.0,) * len(_BANDS),
)

SOFTCON = dataclasses.replace(
    SSL4EO_S12,
    name="softcon",
    objective="softcon",
    by_name=True,
    mean=(1612.9, 1397.6, 1322.3, 1373.1, 1561.0, 2108.4, 2390.7, 2318.7, 2581.0, 837.7, 22.0, 2195.2, 1537.4),
    std=(791.0, 854.3, 878.7, 1144.9, 1127.5, 1164.2, 1276.0, 1249.5, 1345.9, 577.5, 47.5, 1340.0, 1142.9),
)
