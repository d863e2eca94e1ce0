"""Semantic segmentation of your own images, of any size: a folder of pairs, LoveDA, Potsdam.

    python -m scaling.finetune --task=segmentation --checkpoint=runs/quickstart --config=segment.py:pairs:DIR \\
        --workdir=runs/segment

As in the configurations of mmsegmentation: training images are rescaled by a factor of 0.5 to 2, cropped to the model's
input size with at most 75 % of one class, and randomly flipped and rotated; colours are jittered
(`--config.data.photometric=bands` for bands other than 8-bit red, green and blue). Test images are processed whole,
through windows that begin every three quarters of a window, 384 of 512 pixels as published, or every
`--config.test_stride=N` pixels. `--config.image_size=512` takes larger crops than the checkpoint was pretrained with;
published heads have `--config.task.channels=512`.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.data.config import DataConfig
from scaling.objectives import objective_config
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig


def get_config(source: str = "pairs:DIR") -> ConfigDict:
    return config_dict(
        FinetuneConfig(
            epochs=50.0,
            warmup_epochs=2.0,
            batch_size=16,
            checkpoint_every=200,
            log_every=10,
            eval_every=200,
            task=objective_config("segmentation", channels=64, auxiliary_channels=32),
            data=DataConfig(source=source, crop="ratio", photometric="rgb", flips="dihedral"),
            optimizer=OptimizerConfig(base_lr=8e-3, beta2=0.999, layer_decay=0.75),
        )
    )
