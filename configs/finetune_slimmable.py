"""Fine-tuning on the built-in scenes as in `finetune.py`, into one classifier that is usable at eight widths.

    python -m scaling.finetune --checkpoint=runs/quickstart --config=finetune_slimmable.py --workdir=runs/slimmable
    python -m scaling.predict --checkpoint=runs/slimmable --width_ratio=0.25 --input=IMAGES --output=DIR

Every step trains the full width, the smallest and three drawn ones, by the sandwich rule of US-Nets (1903.05134). The
narrower ones learn in equal parts from the labels and from the probabilities of the full width; there, they learn from
the latter alone (`--config.task.distilled=1.0`). Every trained width is scored on the test split. With
`finetune_slimmable.py:SOURCE`, such as `finetune_slimmable.py:folder:tiles`, it trains on your own labelled images.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.objectives import objective_config
from scaling.training.recipes import classification_recipe


def get_config(source: str = "") -> ConfigDict:
    labels = objective_config("classification", label_smoothing=0.1)
    task = objective_config("slimmable_classification", wraps=labels, distillation="logits")
    return config_dict(classification_recipe(task, source))
