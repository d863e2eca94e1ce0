"""A small masked autoencoder on the built-in scenes: minutes on two cores, nothing to download.

make quickstart
python -m scaling.train --config=quickstart.py --workdir=runs/quickstart
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.data.config import DataConfig
from scaling.models.variants import encoder
from scaling.objectives import objective_config
from scaling.training.config import TrainConfig
from scaling.training.optimizer import OptimizerConfig


def get_config() -> ConfigDict:
    sizes = {"width": 128, "depth": 4, "heads": 4, "head_dim": 32, "mlp": 512}
    return config_dict(
        TrainConfig(
            steps=350,
            batch_size=128,
            checkpoint_every=100,
            log_every=25,
            eval_every=175,
            model=encoder("vit_ti", image_size=32, patch_size=4, **sizes),
            objective=objective_config("mae", decoder_width=64, decoder_depth=1, decoder_heads=4),
            data=DataConfig(source="scenes?size=48", flips="dihedral"),
            optimizer=OptimizerConfig(base_lr=2e-3, warmup=35),
        )
    )
