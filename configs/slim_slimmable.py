"""Cuts of the encoders of `sweeps/slimmable.py` at the eight published widths: the rows of `results/slimmable`.

    for set in rssccn7 eurosat; do
      for run in runs/slimmable/runs/*; do
        python -m scaling.slim --checkpoint=$run --config=slim_slimmable.py:$set --output=runs/slim_slimmable/$set
      done
      python -m scaling.slim --checkpoint=runs/slimmable/runs/mae_regular_seed0 \\
          --config=slim_slimmable.py:${set}_controls --output=runs/slim_slimmable/${set}_controls
    done

Without a part (`--config=slim_slimmable.py`) it is that of rssccn7. Hand-made features and random weights are apart:
they are the same for all of these encoders, which have one architecture and one normalisation. Of EuroSAT, 2,000 images
of each split, and no linear probe, which takes longer than all the rest. `results/README.md` describes
`../shared/data`.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.encoders.handmade import QUICK_FLOORS
from scaling.studies.slimming.cells import RANDOM, SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig

SETS = {"rssccn7": ({"limit": 0}, ("knn", "linear")), "eurosat": ({"limit": 2000}, ("knn",))}
PARTS: dict[str, dict[str, Any]] = {
    "": {"pairs": ("first+none", "svd+ridge"), "controls": ("depth_0", "patch_embedding"), "floors": ()},
    "controls": {
        "orderings": (),
        "controls": ("band_statistics", RANDOM),
        "floors": QUICK_FLOORS,
        "seeds": (0, 1, 2),
    },
}


def get_config(part: str = "rssccn7") -> ConfigDict:
    name, _, which = part.partition("_")
    if name not in SETS or which not in PARTS:
        known = ", ".join(f"{name}, {name}_controls" for name in SETS)
        raise UserError(f"--config=slim_slimmable.py:{part}: must be one of {known}")
    fields, probes = SETS[name]
    settings = SlimmingStudyConfig(
        study="slimmable",
        widths=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0),
        probes=probes,
        datasets={name: DatasetConfig(source=f"zip:../shared/data/{name}/images.zip", **fields)},
    )
    return config_dict(dataclasses.replace(settings, **PARTS[which]))
