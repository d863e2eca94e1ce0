"""A model that compiles in seconds."""

from typing import Any

from scaling.models.mae import MAEConfig
from scaling.models.variants import mae


def small(**overrides: Any) -> MAEConfig:
    fields = {
        "image_size": 16,
        "patch_size": 4,
        "width": 32,
        "depth": 2,
        "heads": 2,
        "head_dim": 16,
        "mlp": 64,
        "decoder_width": 16,
        "decoder_depth": 1,
        "decoder_heads": 2,
    }
    return mae("vit_ti", **{**fields, **overrides})
