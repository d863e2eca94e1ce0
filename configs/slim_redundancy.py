"""Retention of cuts on two overhead sets and two of objects: the measurements of S2 in `results/redundancy/PLAN.md`.

    python results/redundancy/tables.py --data=../shared/data --output=runs/redundancy
    python -m scaling.slim --checkpoint=runs/pretraining_sets/runs/seed0_hurricane --config=slim_redundancy.py \\
        --output=runs/slim_redundancy/seed0_hurricane     # and for each of the nine encoders
    python results/redundancy/decide.py runs/slim_redundancy/*/rows.jsonl

A folder for each encoder: random weights take images normalised by the pretraining set, but have one name in rows.

Calibrated on images that the encoder was pretrained on. The floors exclude raw pixels: a linear probe of 100 classes on
12,288 numbers takes longer than everything else. `results/README.md` describes `../shared/data`.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.encoders.handmade import QUICK_FLOORS
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig


def get_config() -> ConfigDict:
    shared = "zip:../shared/data"
    sources = {name: f"{shared}/{name}/images.zip" for name in ("rssccn7", "eurosat", "tinyimagenet")}
    sources["caltech101"] = f"{shared}/caltech101/images.zip?labels=runs/redundancy/caltech101.csv"
    return config_dict(
        SlimmingStudyConfig(
            study="redundancy",
            widths=(0.02, 0.05, 0.1, 0.25, 1.0),
            pairs=("first+none", "svd+ridge"),
            probes=("knn", "linear"),
            floors=QUICK_FLOORS,
            datasets={name: DatasetConfig(source=source) for name, source in sources.items()},
        )
    )
