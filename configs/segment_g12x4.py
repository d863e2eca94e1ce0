"""UperNet on ViT-G12x4 at 512 pixels, on pods, as Cha et al. (2304.05215) use their largest encoder.

    python -m scaling.finetune --task=segmentation --checkpoint=gs://BUCKET/runs/vit_g --config=segment_g12x4.py \\
        --workdir=gs://BUCKET/runs/segment_g --config.data.source=loveda:gs://BUCKET/loveda --config.test_split=val
    python -m tpu.preflight --config=segment_g12x4.py --model=vit_g12x4 --topology=v5e:16x16

The head, crops, decay, layer decay and number of images seen (80,000 batches of 8) are those of MTP on LoveDA; for
batches of 256 the learning rate has not been tuned. Without `data.source` it trains on built-in scenes, as many as
LoveDA has. On v5e:16x16 the compiler uses 2.70 of 15.75 GiB per chip, and a step takes at least 116 ms (MFU at most 79
%, HBM traffic binds). `--config.model.window=16` limits attention to windows, except in blocks 3, 6, 9 and 12.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.data.config import DataConfig
from scaling.models.config import ViTConfig
from scaling.objectives import objective_config
from scaling.parallel.mesh import MeshConfig, widest_fsdp
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig

IMAGES = 2522  # training images in LoveDA


def get_config() -> ConfigDict:
    return config_dict(
        FinetuneConfig(
            epochs=640_000 / IMAGES,
            warmup_epochs=12_000 / IMAGES,
            batch_size=256,
            checkpoint_every=500,
            log_every=10,
            eval_every=500,
            image_size=512,
            model=ViTConfig(remat="full"),
            task=objective_config("segmentation"),
            data=DataConfig(
                source=f"scenes?size=1024&targets=mask&count={IMAGES}",
                crop="ratio",
                photometric="rgb",
                flips="dihedral",
            ),
            optimizer=OptimizerConfig(base_lr=2e-4, beta2=0.999, layer_decay=0.9),
            mesh=MeshConfig(max_fsdp=widest_fsdp(2048)),
        )
    )
