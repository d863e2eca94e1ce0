"""MAE pretraining of an encoder of the size of ViT-22B (Dehghani et al., 2302.05442): 48 layers of width 6144.

    python -m scaling.train --config=vit_22b.py --workdir=gs://BUCKET/vit_22b \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. Queries and keys are normalised as in that paper; attention and MLP
are sequential and have biases, as in every other model here. 21,750.8M encoder and 28.7M decoder parameters;
8,540.5 GFLOP per image and step (`python -m scaling.describe --config=vit_22b.py`), so 3,419.1 EFLOP for
400 epochs of Million-AID: 5,173 chip-hours of TPU v5p at 40 % of its peak (computed, not measured). Which slices it
fits: `results/preflight`.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe, with_optimizer


def get_config() -> ConfigDict:
    recipe = mae_recipe("vit_22b", remat="full", qk_norm=True)
    return config_dict(with_optimizer(recipe, first_moment_dtype="bfloat16"))
