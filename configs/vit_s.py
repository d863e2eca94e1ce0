"""MAE pretraining of ViT-S/16: the size of the SSL4EO-S12 models.

    python -m scaling.train --config=vit_s.py --workdir=gs://BUCKET/vit_s \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. 21.6M encoder and 25.8M decoder parameters;
38.7 GFLOP per image and step (`python -m scaling.describe --config=vit_s.py`), so 15.5 EFLOP for
400 epochs of Million-AID: 55 chip-hours of TPU v5e at 40 % of its peak (computed, not measured).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe


def get_config() -> ConfigDict:
    return config_dict(mae_recipe("vit_s"))
