"""IBM and NASA's Prithvi-EO 2.0 (300M, 600M, with and without time and location), for one date.

The positions in the file are those of four dates; with one date the model uses the first of them, and without time and
location their embeddings are not added. LayerNorm's epsilon is that of the published code; terratorch 1.2 uses 1e-5.
"""

from scaling.interop.family import Family, plain_table, timm_block

PRITHVI_V2 = Family(
    name="prithvi_v2",
    prefixes=("encoder.",),
    table=plain_table() | timm_block("blocks.{i}", "encoder/blocks"),
    unused=("temporal_embed_enc.scale", "location_embed_enc.scale"),
    norm_eps=1e-6,
    licence="Apache-2.0",
    image_size=224,
    bands=("B02", "B03", "B04", "B8A", "B11", "B12"),  # reflectance x 10,000
    mean=(1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0),
    std=(2248.0, 2179.0, 2178.0, 1850.0, 1242.0, 1049.0),
)
