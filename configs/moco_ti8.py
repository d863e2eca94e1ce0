"""MoCo v3 of ViT-Ti/8 at 64 pixels on tiles of Hurricane Harvey, beside `hurricane_ti8.py`: the same encoder, steps,
batch, crops (0.2 to 1 of the area) and images, the heads an eighth as wide as published. No rate was tuned.

    python -m scaling.prepare --source=zip:../shared/data/hurricane/images.zip --split=train,test \\
        --output=runs/data/hurricane
    python -m scaling.train --config=moco_ti8.py --workdir=runs/moco_ti8

The held-out loss is a contrast among 128 tiles of the test split, which has no tile within 300 m of a training tile.
"""

import dataclasses

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.objectives import objective_config
from scaling.training.recipes import vit_ti8_recipe, with_optimizer


def get_config() -> ConfigDict:
    c = with_optimizer(vit_ti8_recipe("arrayrecord:runs/data/hurricane"), beta2=0.999, weight_decay=0.1)
    return config_dict(
        dataclasses.replace(
            c,
            model=dataclasses.replace(c.model, position="sincos_rows"),
            objective=objective_config("moco", hidden=512, outputs=256),
            data=dataclasses.replace(c.data, photometric="byol"),
        )
    )
