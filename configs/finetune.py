"""Fine-tuning on the built-in scenes, after He et al. (2111.06377). Minutes on two cores.

    python -m scaling.finetune --checkpoint=runs/quickstart --config=finetune.py --workdir=runs/finetune

Your own labelled images instead of the scenes: `--config=finetune.py:SOURCE`, such as `finetune.py:folder:tiles`.

As in their recipe for ViT-B: AdamW with betas (0.9, 0.999), layer-wise learning-rate decay 0.65, weight decay 0.05, a
cosine schedule after 5 warm-up epochs, label smoothing 0.1. Changed for a small model: 20 epochs instead of 100, twice
the learning rate. Mixup, which they use, is off by default (`--config.task.mixup=0.8`). RandAugment, CutMix, random
erasing and stochastic depth are not supported.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.objectives import objective_config
from scaling.training.recipes import classification_recipe


def get_config(source: str = "") -> ConfigDict:
    return config_dict(classification_recipe(objective_config("classification", label_smoothing=0.1), source))
