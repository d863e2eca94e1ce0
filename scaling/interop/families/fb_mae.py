"""facebookresearch/mae: the encoder alone (`mae_pretrain_*`) or with its decoder (`mae_visualize_*`)."""

from scaling.interop.family import Family, mae_decoder_table, plain_table, timm_block

FB_MAE = Family(
    name="fb_mae",
    prefixes=("model.",),
    table={
        **plain_table(),
        **timm_block("blocks.{i}", "encoder/blocks"),
        **timm_block("decoder_blocks.{i}", "decoder/blocks"),
        **mae_decoder_table(""),
    },
    unused=("head.*",),
    norm_eps=1e-6,
    licence="CC-BY-NC 4.0",
    objective="mae",
)
