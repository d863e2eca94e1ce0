"""MAE pretraining of ViT-L/16: 24 layers in sequence.

    python -m scaling.train --config=vit_l.py --workdir=gs://BUCKET/vit_l \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. 303.1M encoder and 26.1M decoder parameters;
123.8 GFLOP per image and step (`python -m scaling.describe --config=vit_l.py`), so 49.6 EFLOP for
400 epochs of Million-AID: 175 chip-hours of TPU v5e at 40 % of its peak (computed, not measured).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe


def get_config() -> ConfigDict:
    return config_dict(mae_recipe("vit_l", remat="dots"))
