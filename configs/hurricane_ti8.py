"""MAE pretraining of ViT-Ti/8 at 64 pixels on tiles of Hurricane Harvey: forty minutes on two CPU cores.

    python -m scaling.prepare --source=zip:../shared/data/hurricane/images.zip --split=train,test \\
        --output=runs/data/hurricane
    python -m scaling.train --config=hurricane_ti8.py --workdir=runs/hurricane_ti8

The held-out loss is on the test split, which has no tile within 300 m of a training tile. What it reached is in
`results/hurricane_ti8/`.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.data.config import DataConfig
from scaling.models.variants import encoder
from scaling.objectives import objective_config
from scaling.training.config import TrainConfig
from scaling.training.optimizer import OptimizerConfig


def get_config() -> ConfigDict:
    return config_dict(
        TrainConfig(
            steps=1500,
            batch_size=128,
            checkpoint_every=100,
            log_every=50,
            eval_every=150,
            model=encoder("vit_ti", image_size=64, patch_size=8),
            objective=objective_config("mae", decoder_width=128, decoder_depth=2, decoder_heads=4),
            data=DataConfig(
                source="arrayrecord:runs/data/hurricane", eval_split="test", eval_examples=1024, flips="dihedral"
            ),
            optimizer=OptimizerConfig(base_lr=1.5e-3, warmup=100),
        )
    )
