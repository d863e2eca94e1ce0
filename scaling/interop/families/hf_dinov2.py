"""transformers' DINOv2 with and without registers, GELU or SwiGLU, and with the names of its modules before and since
version 5."""

from scaling.interop.families.hf_vit_mae import attention_table
from scaling.interop.family import Family, plain_table
from scaling.interop.mapping import Place

_BLOCK = {
    "norm1.weight": Place("attention_norm/scale"),
    "norm1.bias": Place("attention_norm/bias"),
    "norm2.weight": Place("mlp_norm/scale"),
    "norm2.bias": Place("mlp_norm/bias"),
    "layer_scale1.lambda1": Place("attention_scale/gain"),
    "layer_scale2.lambda1": Place("mlp_scale/gain"),
}
_MLP = {
    "fc1": Place("mlp_in"),
    "fc2": Place("mlp_out"),
    "weights_in": Place("mlp_in"),  # gate and value, one after the other
    "weights_out": Place("mlp_out"),
    "gate_proj": Place("mlp_in", ("gate", 0)),
    "up_proj": Place("mlp_in", ("gate", 1)),
    "down_proj": Place("mlp_out"),
}


def _block() -> dict[str, Place]:
    table = dict(_BLOCK)
    for module, place in _MLP.items():
        table[f"mlp.{module}.weight"] = Place(f"{place.path}/kernel", place.part)
        table[f"mlp.{module}.bias"] = Place(f"{place.path}/bias", place.part)
    source = "encoder.layer.{i}"
    ours = {f"{source}.{key}": Place(f"encoder/blocks/{place.path}", place.part) for key, place in table.items()}
    return ours | attention_table(source, "encoder/blocks", "old") | attention_table(source, "encoder/blocks", "new")


HF_DINOV2 = Family(
    name="hf_dinov2",
    prefixes=("dinov2.", "dinov2_with_registers.", ""),
    table={
        **plain_table(
            patch="embeddings.patch_embeddings.projection",
            norm="layernorm",
            cls="embeddings.cls_token",
            registers="embeddings.register_tokens",
            position="embeddings.position_embeddings",
        ),
        **_block(),
    },
    unused=("embeddings.mask_token",),
    norm_eps=1e-6,
    model_types=("dinov2", "dinov2_with_registers"),
    objective="dinov2",
    licence="of the model card; facebook/dinov2-*: Apache-2.0",
)
