"""Cuts of the encoders of `sweeps/slimmable.py` at the eight published widths: the rows of `results/slimmable`.

    for run in runs/slimmable/runs/*; do
      python -m scaling.slim --checkpoint=$run --config=slim_slimmable.py --output=runs/slim_slimmable
    done
    python -m scaling.slim --checkpoint=runs/slimmable/runs/mae_regular_seed0 --config=slim_slimmable.py:controls \\
        --output=runs/slim_slimmable_controls

Hand-made features and random weights are apart: they are the same for all of these encoders, which have one
architecture and one normalisation. Of EuroSAT, 2,000 images of each split. `results/README.md` describes
`../shared/data`.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.encoders.handmade import FLOORS
from scaling.studies.slimming.cells import RANDOM, SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig

PARTS: dict[str, dict[str, Any]] = {
    "encoders": {
        "pairs": ("first+none", "svd+ridge"),
        "controls": ("depth_0", "patch_embedding"),
        "floors": (),
    },
    "controls": {
        "orderings": (),
        "controls": ("band_statistics", RANDOM),
        "floors": tuple(name for name in FLOORS if name != "raw_pixels"),
        "seeds": (0, 1, 2),
    },
}


def get_config(part: str = "encoders") -> ConfigDict:
    if part not in PARTS:
        raise UserError(f"--config=slim_slimmable.py:{part}: must be one of {', '.join(PARTS)}")
    datasets = {
        "rssccn7": DatasetConfig(source="zip:../shared/data/rssccn7/images.zip"),
        "eurosat": DatasetConfig(source="zip:../shared/data/eurosat/images.zip", limit=2000),
    }
    settings = SlimmingStudyConfig(
        study="slimmable",
        widths=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
        probes=("knn", "linear"),
        datasets=datasets,
    )
    return config_dict(dataclasses.replace(settings, **PARTS[part]))
