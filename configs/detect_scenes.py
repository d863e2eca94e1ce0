"""Detection of oriented boxes in the built-in scenes of ships, planes, vehicles, tanks and courts.

    python -m scaling.train --config=quickstart.py --workdir=runs/objects --config.model.image_size=64 \\
        --config.model.patch_size=8 --config.data.source='scenes?size=256&targets=boxes' \\
        --config.data.crop_scale='(0.06, 0.25)' --config.data.split='train[:6000]' --config.batch_size=64 \\
        --config.steps=250 --config.optimizer.warmup=25
    python -m scaling.finetune --task=detection --checkpoint=runs/objects --config=detect_scenes.py \\
        --workdir=runs/detect_scenes

7 and 25 minutes of one core. It finds tanks and planes, but few ships and vehicles: mAP 0.287 (`results/detection/`).
Anchors have half the published size, since cars are 10 x 4 pixels here. `--config.data.split=train` for longer.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.data.config import DataConfig
from scaling.models.config import ViTConfig
from scaling.objectives import objective_config
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig


def get_config() -> ConfigDict:
    small = {"channels": 32, "hidden": 256, "proposals": 1000, "roi_samples": 128, "detections": 200}
    return config_dict(
        FinetuneConfig(
            epochs=1.0,
            warmup_epochs=0.05,
            batch_size=2,
            checkpoint_every=500,
            log_every=50,
            eval_every=10_000,
            image_size=256,
            test_split="test[:200]",
            model=ViTConfig(window=8, global_blocks=(4,)),
            task=objective_config("detection", anchor_size=0.5, least_side=1.0, **small),
            data=DataConfig(
                source="scenes?size=256&targets=boxes",
                split="train[:4500]",
                eval_split="test[200:216]",
                crop_scale=(0.8, 1.0),
                flips="dihedral",
            ),
            optimizer=OptimizerConfig(base_lr=0.13, beta2=0.999, clip_norm=5.0, layer_decay=0.9),
        )
    )
