"""MAE pretraining of ViT-Ti/16: the small end of a scaling ladder; the decoder costs more than the encoder here.

    python -m scaling.train --config=vit_ti.py --workdir=gs://BUCKET/vit_ti \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. 5.5M encoder and 25.7M decoder parameters;
33.8 GFLOP per image and step (`python -m scaling.describe --config=vit_ti.py`), so 13.5 EFLOP for
400 epochs of Million-AID: 48 chip-hours of TPU v5e at 40 % of its peak (computed, not measured).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe


def get_config() -> ConfigDict:
    return config_dict(mae_recipe("vit_ti"))
