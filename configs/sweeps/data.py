"""Encoders of three widths on six amounts of data: when is another image worth more than another parameter?

    python -m scaling.sweep --config=sweeps/data.py --workdir=runs/data_size
    python -m scaling.laws runs/data_size/rows.jsonl --x=params,images --y=best_eval_loss --form=kaplan

Every run has the same number of steps; a small set is seen more often (repeated images, by design).
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from scaling.studies.sweeps.plan import SweepConfig, sweep_config
from scaling.studies.sweeps.variation import NamedConfig, product
from scaling.training.config import TrainConfig
from scaling.training.recipes import small_mae_recipe


def get_config() -> ConfigDict:
    settings = SweepConfig(study="data", base=small_mae_recipe())
    images = (250, 500, 1000, 2000, 4000, 8000)
    return sweep_config(settings, images=images, width=(32, 64, 128), parametrization=("mup",), steps=(400,), seed=(0,))


def runs(base: TrainConfig, vary: dict[str, Any]) -> Iterator[NamedConfig]:
    return product(base, vary)
