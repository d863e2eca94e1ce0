"""Every ordering and recovery on an encoder pretrained on satellite images, probed on scenes. Half an hour on 2 cores.

    python -m scaling.slim --checkpoint=runs/hurricane_ti8 --config=slim_hurricane.py --output=runs/slim_hurricane

The encoder is that of `hurricane_ti8.py`. The results are in `results/slimming_hurricane/`. `results/README.md`
describes `../shared/data`.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.slimming.orderings import ORDERINGS
from scaling.slimming.recovery import RECOVERIES
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig


def get_config() -> ConfigDict:
    return config_dict(
        SlimmingStudyConfig(
            study="slimming_hurricane",
            widths=(0.02, 0.05, 0.1, 0.25, 0.5, 0.75),
            orderings=tuple(ORDERINGS),
            recoveries=tuple(RECOVERIES),
            probes=("knn", "linear"),
            calibration_source="probed",  # as for the rows in `results/`; `pretraining` is the default
            datasets={"rssccn7": DatasetConfig(source="zip:../shared/data/rssccn7/images.zip")},
        )
    )
