"""MoCo v3 of ViT-Ti/8 at 64 pixels on tiles of Hurricane Harvey, beside `hurricane_ti8.py`: the same encoder, steps,
batch, crops (0.2 to 1 of the area) and images, with projection and prediction heads one eighth as wide as published.
The learning rate was not tuned.

    python -m scaling.prepare --source=zip:../shared/data/hurricane/images.zip --split=train,test \\
        --output=runs/data/hurricane
    python -m scaling.train --config=moco_ti8.py --workdir=runs/moco_ti8

The held-out loss is a contrast among 128 tiles of the test split, which has no tile within 300 m of a training tile.
`results/README.md` describes `../shared/data`.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import vit_ti8_moco_recipe


def get_config() -> ConfigDict:
    return config_dict(vit_ti8_moco_recipe("arrayrecord:runs/data/hurricane"))
