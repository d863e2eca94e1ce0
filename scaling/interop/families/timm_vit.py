"""timm's VisionTransformer: MAE, AugReg, DINOv2 with or without registers, and the giant one with its packed SwiGLU
(keys: timm 1.0.31)."""

from scaling.interop.family import Family, plain_table, timm_block

TIMM_VIT = Family(
    name="timm_vit",
    prefixes=("",),
    table=plain_table() | timm_block("blocks.{i}", "encoder/blocks"),
    unused=("head.*", "fc_norm.*"),
    norm_eps=1e-6,
    antialias=True,
    bare_positions=True,
    licence="of the model card",
)
