"""Semantic segmentation of the built-in scenes, which provide exact masks. Minutes on two cores.

    python -m scaling.finetune --task=segmentation --checkpoint=runs/quickstart --config=segment_scenes.py \\
        --workdir=runs/segment

UperNet with a quarter of the published channels. `--config.task.head=mlp` or `linear` are cheaper heads, and
`--config.task.frozen=True` trains the head alone.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.data.config import DataConfig
from scaling.objectives import objective_config
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig


def get_config() -> ConfigDict:
    return config_dict(
        FinetuneConfig(
            epochs=5.0,
            warmup_epochs=0.5,
            batch_size=16,
            checkpoint_every=100,
            log_every=10,
            eval_every=100,
            task=objective_config("segmentation", channels=64, auxiliary_channels=32),
            data=DataConfig(source="scenes?size=48&targets=mask", split="train[:1000]", flips="dihedral"),
            test_split="test[:200]",
            optimizer=OptimizerConfig(base_lr=8e-3, beta2=0.999, layer_decay=0.75),
        )
    )
