"""MAE pretraining of ViT-G/14: 1.8 billion parameters in sequence (Zhai et al., 2106.04560).

    python -m scaling.train --config=vit_gg.py --workdir=gs://BUCKET/vit_gg \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. 1,842.3M encoder and 26.4M decoder parameters;
765.0 GFLOP per image and step (`python -m scaling.describe --config=vit_gg.py`), so 306.3 EFLOP for
400 epochs of Million-AID: 1,080 chip-hours of TPU v5e at 40 % of its peak (computed, not measured).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe, with_optimizer


def get_config() -> ConfigDict:
    return config_dict(with_optimizer(mae_recipe("vit_gg", remat="full"), first_moment_dtype="bfloat16"))
