"""The class of every pixel of images of yours, of any size: a folder of pairs, LoveDA, Potsdam.

    python -m scaling.finetune --task=segmentation --checkpoint=runs/quickstart --config=segment.py:pairs:DIR \\
        --workdir=runs/segment

As the configurations of mmsegmentation have it: training images are resized by a ratio of 0.5 to 2, cropped to what the
model takes with at most 75 % of one class, and turned; colours change (`--config.data.photometric=bands` for other
bands than red, green and blue of 8 bits). Test images are looked at whole, through windows that begin every three
quarters of one, 384 of 512 pixels as published; `--config.test_stride=N` for others. `--config.image_size=512` takes
larger crops than the checkpoint was pretrained with; a published head has `--config.task.channels=512`.
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
