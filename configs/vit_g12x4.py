"""MAE pretraining of ViT-G12x4: 12 layers of four parallel branches (Cha et al., 2304.05215; 2.4B in their count).

    python -m scaling.train --config=vit_g12x4.py --workdir=gs://BUCKET/vit_g12x4 \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. 2,418.5M encoder and 26.7M decoder parameters;
760.6 GFLOP per image and step (`python -m scaling.describe --config=vit_g12x4.py`), so 304.5 EFLOP for
400 epochs of Million-AID: 1,073 chip-hours of TPU v5e at 40 % of its peak (computed, not measured).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe, with_optimizer


def get_config() -> ConfigDict:
    return config_dict(with_optimizer(mae_recipe("vit_g12x4", remat="full"), first_moment_dtype="bfloat16"))
