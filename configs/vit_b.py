"""MAE pretraining of ViT-B/16: the size of most public remote-sensing models.

    python -m scaling.train --config=vit_b.py --workdir=gs://BUCKET/vit_b \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. 85.6M encoder and 26.0M decoder parameters;
58.1 GFLOP per image and step (`python -m scaling.describe --config=vit_b.py`), so 23.3 EFLOP for
400 epochs of Million-AID: 82 chip-hours of TPU v5e at 40 % of its peak (computed, not measured).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe


def get_config() -> ConfigDict:
    return config_dict(mae_recipe("vit_b"))
