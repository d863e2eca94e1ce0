"""MAE pretraining of a ViT of 6.4 billion parameters: 32 layers of width 4096, two thirds of the depth and width of
ViT-22B.

    python -m scaling.train --config=vit_6b.py --workdir=gs://BUCKET/vit_6b \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. Queries and keys are normalised (QK-norm), because without it
training has been reported to diverge from 8 billion parameters on (Dehghani et al., 2302.05442); this model has 6.4
billion. 6,446.6M encoder and 27.6M decoder parameters; 2,563.6 GFLOP per image and step (`python -m scaling.describe
--config=vit_6b.py`), so 1,026.3 EFLOP for 400 epochs of Million-AID: 3,618 chip-hours of TPU v5e at 40 % of its peak
(computed, not measured). Which slices it fits: `results/preflight`.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe, with_optimizer


def get_config() -> ConfigDict:
    recipe = mae_recipe("vit_6b", remat="full", qk_norm=True)
    return config_dict(with_optimizer(recipe, first_moment_dtype="bfloat16"))
