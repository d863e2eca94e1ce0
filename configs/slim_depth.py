"""The score of every depth on two overhead sets and one of objects, beside random weights of the same depths: the
curves of `results/depth`.

    python results/redundancy/tables.py --data=../shared/data --output=runs/redundancy
    python -m scaling.slim --checkpoint=runs/depth/deep12 --config=slim_depth.py --output=runs/depth/curves
    python -m scaling.slim --checkpoint=runs/depth/deep12 --config=slim_depth.py:finetune --output=runs/depth/finetuned

The second command fine-tunes four depths on 1,000 images of one set; `--config.widths` are the depths as shares of all
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
    own = _finetuned() if probe else _curves()
    return config_dict(SlimmingStudyConfig(study="depth", modes=("layers",), **own))


def _curves() -> dict[str, Any]:
    datasets = {name: DatasetConfig(source=source, limit=1500) for name, source in SOURCES.items()}
    return {
        "datasets": datasets,
        "every_depth": True,
        "probes": ("knn", "linear"),
        "controls": ("depth_0", "random_weights"),
        "floors": ("handmade",),
    }


def _finetuned() -> dict[str, Any]:
    recipe = FinetuneConfig(
        epochs=6.0,
        warmup_epochs=1.0,
        batch_size=32,
        log_every=50,
        task=objective_config("classification", label_smoothing=0.1),
        data=DataConfig(flips="dihedral"),
        optimizer=OptimizerConfig(base_lr=4e-3, beta2=0.999, layer_decay=0.75),
    )
    return {
        "datasets": {"rssccn7": DatasetConfig(source=SOURCES["rssccn7"], limit=1000)},
        "widths": tuple(depth / 12 for depth in (2, 4, 7, 12)),
        "probes": ("finetune",),
        "controls": (),
        "floors": (),
        "finetune": recipe,
    }
