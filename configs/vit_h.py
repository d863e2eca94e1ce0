"""MAE pretraining of ViT-H/14: the largest model of He et al. (2111.06377).

    python -m scaling.train --config=vit_h.py --workdir=gs://BUCKET/vit_h \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. 630.4M encoder and 26.2M decoder parameters;
290.5 GFLOP per image and step (`python -m scaling.describe --config=vit_h.py`), so 116.3 EFLOP for
400 epochs of Million-AID: 410 chip-hours of TPU v5e at 40 % of its peak (computed, not measured).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe


def get_config() -> ConfigDict:
    return config_dict(mae_recipe("vit_h", remat="full"))
