"""MAE pretraining of SoViT-400m/14: the compute-optimal shape of Alabdulmohsin et al. (2305.13035).

    python -m scaling.train --config=vit_so400m.py --workdir=gs://BUCKET/vit_so400m \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. 412.1M encoder and 26.1M decoder parameters;
204.9 GFLOP per image and step (`python -m scaling.describe --config=vit_so400m.py`), so 82.0 EFLOP for
400 epochs of Million-AID: 289 chip-hours of TPU v5e at 40 % of its peak (computed, not measured).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe


def get_config() -> ConfigDict:
    return config_dict(mae_recipe("vit_so400m", remat="dots"))
