"""The published slimming study on the built-in scenes: 31 widths, k-NN, with controls. Minutes on two cores.

    python -m scaling.slim --checkpoint=runs/quickstart --config=slim.py --output=runs/slim

Name your own data sets in a copy of this file, or override: `--config.datasets.scenes.limit=500`.
"""

from ml_collections import ConfigDict

from scaling.config import config_dict
from scaling.evaluation.cells import SweepConfig
from scaling.evaluation.datasets import DatasetConfig


def get_config() -> ConfigDict:
    return config_dict(SweepConfig(datasets={"scenes": DatasetConfig(source="scenes?size=48", limit=1000)}))
