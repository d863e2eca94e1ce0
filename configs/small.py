"""The masked autoencoder that the sweeps vary, as a single run: to tune its learning rate or check its coordinates.

    python -m scaling.train --config=small.py --workdir=runs/small
    python -m scaling.coordcheck --config=small.py --widths=64,128,256,512,1024 --output=runs/coordinates

45M operations per image and training step, mostly in the decoder (`python -m scaling.describe --config=small.py`).
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.training.recipes import small_mae_recipe


def get_config() -> ConfigDict:
    return config_dict(small_mae_recipe())
