"""The published slimming study on the built-in scenes: 31 widths, k-NN, with controls. Minutes on two cores.

    python -m scaling.slim --checkpoint=runs/quickstart --config=slim.py --output=runs/slim

Your own images instead of the scenes: `--config=slim.py:NAME=SOURCE`, such as `slim.py:mine=folder:tiles`; further
settings are then fields, such as `--config.datasets.mine.limit=500`. For several data sets, copy this file.
"""

from ml_collections import ConfigDict

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig


def get_config(own: str = "") -> ConfigDict:
    name, _, source = own.partition("=")
    if own and not (name.isidentifier() and source):
        raise UserError(f"--config=slim.py:{own}: give NAME=SOURCE, such as slim.py:mine=folder:tiles")
    scenes = DatasetConfig(source="scenes?size=48", limit=1000)
    return config_dict(
        SlimmingStudyConfig(datasets={name: DatasetConfig(source=source)} if own else {"scenes": scenes})
    )
