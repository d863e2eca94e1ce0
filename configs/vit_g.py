"""MAE pretraining of ViT-g/14: one billion parameters in sequence (Zhai et al., 2106.04560).

    python -m scaling.train --config=vit_g.py --workdir=gs://BUCKET/vit_g \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. 1,010.8M encoder and 26.2M decoder parameters;
439.6 GFLOP per image and step (`python -m scaling.describe --config=vit_g.py`), so 176.0 EFLOP for
400 epochs of Million-AID: 620 chip-hours of TPU v5e at 40 % of its peak (computed, not measured).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe, with_optimizer


def get_config() -> ConfigDict:
    return config_dict(with_optimizer(mae_recipe("vit_g", remat="full"), first_moment_dtype="bfloat16"))
