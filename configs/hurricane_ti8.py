"""MAE pretraining of ViT-Ti/8 at 64 pixels on tiles of Hurricane Harvey: forty minutes on two CPU cores.

    python -m scaling.prepare --source=zip:../shared/data/hurricane/images.zip --split=train,test \\
        --output=runs/data/hurricane
    python -m scaling.train --config=hurricane_ti8.py --workdir=runs/hurricane_ti8

The held-out loss is on the test split, which has no tile within 300 m of a training tile. Its results are in
`results/hurricane_ti8/`. `results/README.md` describes `../shared/data`.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import vit_ti8_recipe


def get_config() -> ConfigDict:
    return config_dict(vit_ti8_recipe("arrayrecord:runs/data/hurricane"))
