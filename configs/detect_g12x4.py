"""Oriented R-CNN on ViT-G12x4 at 1024 pixels, on pods, as Cha et al. (2304.05215) use their largest encoder.

    python -m scaling.finetune --task=detection --checkpoint=gs://BUCKET/runs/vit_g --config=detect_g12x4.py \\
        --workdir=gs://BUCKET/runs/detect_g --config.data.source=arrayrecord:gs://BUCKET/dota_tiles \\
        --config.test_split=val
    python -m tpu.preflight --config=detect_g12x4.py --model=vit_g12x4 --topology=v5e:16x16

The head is mmrotate's: anchors, thresholds, samples, losses and coders. Attention is limited to windows of 16 x 16
patches except in blocks 3, 6, 9 and 12; 64 x 64 patches are then whole windows (ViTDet's 14 would need padding). Decay
and layer decay are those of ViTDet's largest model, without its drop path and its relative positions
(`model.relative=True`). Images are DOTA's tiles of 1024 pixels, as written by `scaling.prepare
--source='dota:DIR?tile=1024'`; 12 epochs as published, in batches of 256, whose learning rate has not been tuned.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.data.config import DataConfig
from scaling.models.config import ViTConfig
from scaling.objectives import objective_config
from scaling.parallel.mesh import MeshConfig, widest_fsdp
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig


def get_config() -> ConfigDict:
    return config_dict(
        FinetuneConfig(
            epochs=12.0,
            warmup_epochs=0.5,
            batch_size=256,
            checkpoint_every=100,
            log_every=10,
            eval_every=100,
            image_size=1024,
            model=ViTConfig(remat="full", window=16),
            task=objective_config("detection", most=512),
            data=DataConfig(source="scenes?size=1024&targets=boxes", crop_scale=(0.5, 1.0), flips="dihedral"),
            optimizer=OptimizerConfig(base_lr=2e-4, beta2=0.999, weight_decay=0.1, clip_norm=35.0, layer_decay=0.9),
            mesh=MeshConfig(max_fsdp=widest_fsdp(2048)),
        )
    )
