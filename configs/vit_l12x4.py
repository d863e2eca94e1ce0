"""MAE pretraining of ViT-L12x4: 12 layers of four parallel branches (Cha et al., 2304.05215; 605.26M in their count).

    python -m scaling.train --config=vit_l12x4.py --workdir=gs://BUCKET/vit_l12x4 \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. 605.3M encoder and 26.1M decoder parameters;
215.1 GFLOP per image and step (`python -m scaling.describe --config=vit_l12x4.py`), so 86.1 EFLOP for
400 epochs of Million-AID: 304 chip-hours of TPU v5e at 40 % of its peak (computed, not measured).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe


def get_config() -> ConfigDict:
    return config_dict(mae_recipe("vit_l12x4", remat="dots"))
