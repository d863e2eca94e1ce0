"""SSL4EO-S12 (MAE, MoCo, DINO) as torchgeo publishes it, with timm's keys: thirteen bands of Sentinel-2 level 1C.

Images are reflectances x 10,000, divided by 10,000 (torchgeo's transforms of these weights).
"""

from scaling.interop.family import Family, plain_table, timm_block

_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")

SSL4EO_S12 = Family(
    name="ssl4eo_s12",
    prefixes=("",),
    table=plain_table() | timm_block("blocks.{i}", "encoder/blocks"),
    unused=("head.*", "fc_norm.*"),
    norm_eps=1e-6,
    licence="CC-BY-4.0 (not verified)",
    bands=_BANDS,
    mean=(0.0,) * len(_BANDS),
    std=(10_000.0,) * len(_BANDS),
)
