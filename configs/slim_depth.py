"""The score of every depth on two overhead sets and one of objects, beside random weights of the same depths: the
curves of `results/depth`.

    python results/redundancy/tables.py --data=../shared/data --output=runs/redundancy
    python -m scaling.slim --checkpoint=runs/depth/deep12 --config=slim_depth.py --output=runs/depth/curves
    python -m scaling.slim --checkpoint=runs/depth/deep12 --config=slim_depth.py:finetune --output=runs/depth/finetuned

The second command fine-tunes five depths on 1,000 images of one set; `--config.widths` are the depths as shares of all
blocks. `results/README.md` describes `../shared/data`.
"""

from typing import Any

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.objectives import objective_config
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig

SOURCES = {
    "rssccn7": "zip:../shared/data/rssccn7/images.zip",
    "eurosat": "zip:../shared/data/eurosat/images.zip",
    "caltech101": "zip:../shared/data/caltech101/images.zip?labels=runs/redundancy/caltech101.csv",
}


def get_config(probe: str = "") -> ConfigDict:
    if probe not in ("", "finetune"):
        raise UserError(f"--config=slim_depth.py:{probe}: must be slim_depth.py or slim_depth.py:finetune")
    names, limit = (("rssccn7",), 1000) if probe else (tuple(SOURCES), 1500)
    own: dict[str, Any] = {"every_depth": True, "probes": ("knn", "linear"), "floors": ("handmade",)}
    if probe:
        widths = tuple(depth / 12 for depth in (1, 2, 4, 8, 12))
        own = {"widths": widths, "probes": ("finetune",), "floors": (), "finetune": _recipe()}
    return config_dict(
        SlimmingStudyConfig(
            study="depth",
            modes=("layers",),
            controls=("depth_0", "random_weights"),
            datasets={name: DatasetConfig(source=SOURCES[name], limit=limit) for name in names},
            **own,
        )
    )


def _recipe() -> FinetuneConfig:
    return FinetuneConfig(
        epochs=6.0,
        warmup_epochs=1.0,
        batch_size=32,
        log_every=50,
        task=objective_config("classification", label_smoothing=0.1),
        data=DataConfig(flips="dihedral"),
        optimizer=OptimizerConfig(base_lr=4e-3, beta2=0.999, layer_decay=0.75),
    )
