"""Slimmable MoCo v3 of ViT-Ti/8 at 64 pixels on tiles of Hurricane Harvey: `moco_ti8.py` at five widths per step. Half
of the narrower widths' loss is distillation of the full one's similarities.

    python -m scaling.train --config=slimmable_moco_ti8.py --workdir=runs/slimmable_moco_ti8

13.9 GFLOP per image and step, 2.4 times those of `moco_ti8.py` (`python -m scaling.describe`): 633 steps have as many
operations as its 1,500 (`--config.steps=633`).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import slimmable, vit_ti8_moco_recipe


def get_config() -> ConfigDict:
    c = vit_ti8_moco_recipe("arrayrecord:runs/data/hurricane")
    return config_dict(slimmable(c, distillation="similarities"))
