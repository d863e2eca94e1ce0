"""Slimmable MAE pretraining of ViT-L/16 for a pod: `vit_l.py` at five widths per step.

    python -m scaling.train --config=slimmable_l.py --workdir=gs://BUCKET/slimmable_l \\
        --config.data.source=arrayrecord:gs://BUCKET/millionaid --config.data.split=train+test
    python -m tpu.preflight --config=slimmable_l.py --topology=v5e:16x16

419.1 GFLOP per image and step on average, 3.4 times those of `vit_l.py` (`python -m scaling.describe`): 168 EFLOP for
400 epochs of Million-AID. On v5e:16x16 the compiler takes 1.91 GiB of HBM per chip, and MFU is bound at 99.1 %, by
compute.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import mae_recipe, slimmable


def get_config() -> ConfigDict:
    return config_dict(slimmable(mae_recipe("vit_l", remat="dots"), distillation="outputs"))
