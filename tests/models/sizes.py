"""A model that compiles in seconds."""

from typing import Any

from scaling.core.config import divided
from scaling.models.config import ViTConfig, encoder_config
from scaling.models.mae import MAEConfig
from scaling.models.variants import encoder
from scaling.objectives.mae import MaskedAutoencoding


def mae(name: str, **fields: Any) -> MAEConfig:
    """A named encoder with the decoder of its pretraining, with any field overridden."""
    own, others = divided(ViTConfig, fields)
    return MaskedAutoencoding(**others).with_encoder(encoder(name, **own))


def halves(c: MAEConfig) -> dict[str, Any]:
    """The same as fields of a training configuration."""
    return {"model": encoder_config(c), "objective": MaskedAutoencoding.of(c)}


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
