"""MoCo v3 pretraining of ViT-B/16, by the published recipe.

    python -m scaling.train --config=moco_b.py --workdir=gs://BUCKET/moco_b \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test

Without `data.source` it trains on built-in scenes. Images other than three 8-bit colours need
`--config.data.photometric=byol_bands`. Sizes and operations: `python -m scaling.describe --config=moco_b.py`.

On v5e:16x16 the compiler takes 2.66 GiB of HBM per chip, and MFU is bound at 100 %, by compute (`tpu.preflight`).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import moco_recipe


def get_config() -> ConfigDict:
    return config_dict(moco_recipe("vit_b"))
