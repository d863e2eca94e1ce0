"""Detection of oriented boxes on your own images: DOTA, DIOR-R, folders in their layouts, YOLO-OBB.

    python -m scaling.finetune --task=detection --checkpoint=runs/quickstart --config=detect.py:dota:DIR \\
        --workdir=runs/detect

Oriented R-CNN on ViTDet's pyramid with a quarter of the published channels and proposals, for CPUs.
`--config.task.channels=256 --config.task.hidden=1024 --config.task.proposals=2000 --config.task.roi_samples=512` are
the published sizes; with them, a step of ViT-Ti on 2 images of 512 pixels takes 10 s of processor time, 7 s of which
are spent in the encoder and pyramid. `--config.task.head=rotated_retinanet` has no second stage,
`--config.task.frozen=True` trains the head alone, and `--config.model.window=14 --config.model.relative=True` is
ViTDet's backbone. Cut pictures that are larger than the model's input into tiles first: `python -m scaling.prepare
--source='dota:DIR?tile=512&gap=100' --split=train,val --output=TILES`, and then `--config=detect.py:arrayrecord:TILES
--config.test_split=val`.

Oriented R-CNN learns from an object only if it is about as large as an anchor. The smallest anchors have a side of
twice the patches (16 pixels with patches of 8); `--config.task.anchor_size=0.5` halves all of them.
`--config.task.proposals` limits how many objects of a crowded image can be found, since an object takes several of
them: 300 missed a third of the large vehicles of training tiles that 1,000 found with the same weights
(`results/detection/`).

A batch has room for `--config.task.most=256` objects per image; `objects_without_room` in the log counts the objects
dropped. `--config.task.rules=dior` scores by the rules of DIOR-R.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.data.config import DataConfig
from scaling.objectives import objective_config
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig


def get_config(source: str = "dota:DIR") -> ConfigDict:
    return config_dict(
        FinetuneConfig(
            epochs=36.0,
            warmup_epochs=1.0,
            batch_size=8,
            checkpoint_every=200,
            log_every=10,
            eval_every=200,
            image_size=512,
            task=objective_config("detection", channels=64, hidden=256, proposals=500, roi_samples=128),
            data=DataConfig(source=source, crop_scale=(0.5, 1.0), flips="dihedral"),
            optimizer=OptimizerConfig(base_lr=8e-3, beta2=0.999, clip_norm=5.0, layer_decay=0.75),
        )
    )
