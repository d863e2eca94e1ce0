"""transformers' ViTMAE, with decoder or without, and with the names of its modules before and since version 5.

Queries, keys and values are layers of their own. Files on the hub keep the old names.
"""

from scaling.interop.family import Family, mae_decoder_table, plain_table
from scaling.interop.mapping import Place

_OLD = {
    "query": "attention.attention.query",
    "key": "attention.attention.key",
    "value": "attention.attention.value",
    "out": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
_NEW = {
    "query": "attention.q_proj",
    "key": "attention.k_proj",
    "value": "attention.v_proj",
    "out": "attention.o_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}


def _block(source: str, ours: str, modules: dict[str, str]) -> dict[str, Place]:
    groups = {modules[name]: Place(f"{ours}/qkv", i) for i, name in enumerate(("query", "key", "value"))}
    groups |= {modules["out"]: Place(f"{ours}/attention_out")}
    groups |= {modules["fc1"]: Place(f"{ours}/mlp_in"), modules["fc2"]: Place(f"{ours}/mlp_out")}
    table = {}
    for module, place in groups.items():
        table[f"{source}.{module}.weight"] = Place(f"{place.path}/kernel", place.qkv)
        table[f"{source}.{module}.bias"] = Place(f"{place.path}/bias", place.qkv)
    for norm, group in (("layernorm_before", "attention_norm"), ("layernorm_after", "mlp_norm")):
        table[f"{source}.{norm}.weight"] = Place(f"{ours}/{group}/scale")
        table[f"{source}.{norm}.bias"] = Place(f"{ours}/{group}/bias")
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
        **_block("encoder.layer.{i}", "encoder/blocks", _OLD),
        **_block("layers.{i}", "encoder/blocks", _NEW),
        **_block("decoder.decoder_layers.{i}", "decoder/blocks", _OLD),
        **_block("decoder.decoder_layers.{i}", "decoder/blocks", _NEW),
        **mae_decoder_table("decoder."),
    },
    unused=("pooler.*",),
    norm_eps=1e-12,
    mixed=True,
    licence="of the model card; facebook/vit-mae-*: CC-BY-NC 4.0",
)
