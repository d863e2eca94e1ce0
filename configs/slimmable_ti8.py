"""Slimmable MAE pretraining of ViT-Ti/8 at 64 pixels on tiles of Hurricane Harvey: `hurricane_ti8.py` at five widths
per step. Half of the loss of the narrower widths is distillation from the pixels predicted at full width.

    python -m scaling.train --config=slimmable_ti8.py --workdir=runs/slimmable_ti8

2.45 GFLOP per image and step, 3.4 times those of `hurricane_ti8.py` (`python -m scaling.describe`): 447 steps have as
many operations as its 1,500 (`--config.steps=447`).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import slimmable, vit_ti8_recipe


def get_config() -> ConfigDict:
    return config_dict(slimmable(vit_ti8_recipe("arrayrecord:runs/data/hurricane"), distillation="outputs"))
