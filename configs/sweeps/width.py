"""Encoders of one depth and six widths: the decrease of the held-out loss with parameters.

    python -m scaling.sweep --config=sweeps/width.py --workdir=runs/width --plan
    python -m scaling.sweep --config=sweeps/width.py --workdir=runs/width
    python -m scaling.laws runs/width/rows.jsonl --x=params --y=eval_loss --form=power --figure=runs/width/law

For your own images: --config.base.data.source=arrayrecord:DIR. The learning rate is tuned once, at the base's width,
and transferred by muP; --config.vary.parametrization="('standard',)" trains without muP.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from scaling.studies.sweeps.plan import SweepConfig, sweep_config
from scaling.studies.sweeps.variation import NamedConfig, product
from scaling.training.config import TrainConfig
from scaling.training.recipes import small_mae_recipe


def get_config() -> ConfigDict:
    settings = SweepConfig(study="width", base=small_mae_recipe())
    return sweep_config(settings, width=(32, 64, 96, 128, 192, 256), parametrization=("mup",), steps=(400,), seed=(0,))


def runs(base: TrainConfig, vary: dict[str, Any]) -> Iterator[NamedConfig]:
    return product(base, vary)
