"""Encoders of one width and five depths, with the learning rate carried over by muP and by CompleteP.

python -m scaling.sweep --config=sweeps/depth.py --workdir=runs/depth
python -m scaling.laws runs/depth/rows.jsonl --x=layers --y=eval_loss --form=power --where=parametrization=completep
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from scaling.studies.sweeps.plan import SweepConfig, sweep_config
from scaling.studies.sweeps.variation import NamedConfig, product
from scaling.training.config import TrainConfig
from scaling.training.recipes import small_mae_recipe


def get_config() -> ConfigDict:
    settings = SweepConfig(study="depth", base=small_mae_recipe())
    return sweep_config(settings, depth=(2, 4, 6, 8, 12), parametrization=("mup", "completep"), steps=(400,), seed=(0,))


def runs(base: TrainConfig, vary: dict[str, Any]) -> Iterator[NamedConfig]:
    return product(base, vary)
