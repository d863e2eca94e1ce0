"""facebookresearch/mae: the encoder alone (`mae_pretrain_*`) or with its decoder (`mae_visualize_*`)."""

from scaling.interop.family import DECODER_POSITIONS, Family, plain_table, timm_block
from scaling.interop.mapping import Place

FB_MAE = Family(
    name="fb_mae",
    prefixes=("model.",),
    table={
        **plain_table(),
        **timm_block("blocks.{i}", "encoder/blocks"),
        **timm_block("decoder_blocks.{i}", "decoder/blocks"),
        "decoder_embed.weight": Place("decoder/embed/kernel"),
        "decoder_embed.bias": Place("decoder/embed/bias"),
        "mask_token": Place("decoder/mask/token"),
        "decoder_pos_embed": DECODER_POSITIONS,
        "decoder_norm.weight": Place("decoder/norm/scale"),
        "decoder_norm.bias": Place("decoder/norm/bias"),
        "decoder_pred.weight": Place("decoder/pixels/kernel"),
        "decoder_pred.bias": Place("decoder/pixels/bias"),
    },
    unused=("head.*",),
    norm_eps=1e-6,
    licence="CC-BY-NC 4.0",
)
