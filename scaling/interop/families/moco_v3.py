"""facebookresearch/moco-v3: the query encoder of a pretraining checkpoint. Its ViT-S has twelve heads."""

from scaling.interop.family import HEADS, Family, plain_table, timm_block

MOCO_V3 = Family(
    name="moco_v3",
    prefixes=("state_dict.module.base_encoder.", "state_dict.module.momentum_encoder."),
    table=plain_table() | timm_block("blocks.{i}", "encoder/blocks"),
    unused=("head.*",),
    norm_eps=1e-6,
    licence="CC-BY-NC 4.0",
    objective="moco_v3",
    fixed_positions=True,
    heads=HEADS | {384: 12},
)
