"""Is the best learning rate of a narrow encoder also the best for a wide one? Under muP it should be; otherwise not.

python -m scaling.sweep --config=sweeps/lr_transfer.py --workdir=runs/lr_transfer
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from scaling.studies.sweeps.plan import SweepConfig, sweep_config
from scaling.studies.sweeps.variation import NamedConfig, product
from scaling.training.config import TrainConfig
from scaling.training.recipes import small_mae_recipe

RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)


def get_config() -> ConfigDict:
    settings = SweepConfig(study="lr_transfer", base=small_mae_recipe())
    return sweep_config(
        settings, parametrization=("standard", "mup"), width=(64, 128, 256), lr=RATES, steps=(200,), seed=(0,)
    )


def runs(base: TrainConfig, vary: dict[str, Any]) -> Iterator[NamedConfig]:
    return product(base, vary)
