"""transformers' ViT and ViTMAE, the latter with decoder or without, and with the names of their modules before and
since version 5.

Queries, keys and values are separate layers. Files on the hub keep the old names.
"""

from scaling.interop.family import Family, mae_decoder_table, plain_table
from scaling.interop.mapping import Place

_ATTENTION = {
    "old": (*(f"attention.attention.{name}" for name in ("query", "key", "value")), "attention.output.dense"),
    "new": tuple(f"attention.{name}_proj" for name in "qkvo"),
}
_MLP = {"old": ("intermediate.dense", "output.dense"), "new": ("mlp.fc1", "mlp.fc2")}


def attention_table(source: str, ours: str, age: str) -> dict[str, Place]:
    """The keys of attention in one block, by either the old or the new names."""
    *parts, out = _ATTENTION[age]
    groups = {module: Place(f"{ours}/qkv", ("qkv", i)) for i, module in enumerate(parts)}
    return _linear(source, groups | {out: Place(f"{ours}/attention_out")})


def _block(source: str, ours: str, age: str) -> dict[str, Place]:
    table = attention_table(source, ours, age)
    table |= _linear(source, dict(zip(_MLP[age], (Place(f"{ours}/mlp_in"), Place(f"{ours}/mlp_out")), strict=True)))
    for norm, group in (("layernorm_before", "attention_norm"), ("layernorm_after", "mlp_norm")):
        table[f"{source}.{norm}.weight"] = Place(f"{ours}/{group}/scale")
        table[f"{source}.{norm}.bias"] = Place(f"{ours}/{group}/bias")
    return table


def _linear(source: str, groups: dict[str, Place]) -> dict[str, Place]:
    table = {}
    for module, place in groups.items():
        table[f"{source}.{module}.weight"] = Place(f"{place.path}/kernel", place.part)
        table[f"{source}.{module}.bias"] = Place(f"{place.path}/bias", place.part)
    return table


HF_VIT_MAE = Family(
    name="hf_vit_mae",
    prefixes=("vit.", ""),
    table={
        **plain_table(
            patch="embeddings.patch_embeddings.projection",
            norm="layernorm",
            cls="embeddings.cls_token",
            position="embeddings.position_embeddings",
        ),
        **_block("encoder.layer.{i}", "encoder/blocks", "old"),
        **_block("layers.{i}", "encoder/blocks", "new"),
        **_block("decoder.decoder_layers.{i}", "decoder/blocks", "old"),
        **_block("decoder.decoder_layers.{i}", "decoder/blocks", "new"),
        **mae_decoder_table("decoder."),
    },
    unused=("pooler.*", "classifier.*"),
    norm_eps=1e-12,
    mixed=True,
    model_types=("vit", "vit_mae", "vit_msn"),
    licence="of the model card; facebook/vit-mae-*: CC-BY-NC 4.0",
)
