"""ViT-Ti/8 on the tiles of `hurricane_ti8.py`, for 150, 600 and 2,400 steps: do cuts lose more after longer training?

    python -m scaling.prepare --source=zip:../shared/data/hurricane/images.zip --split=train,test \\
        --output=runs/data/hurricane
    python -m scaling.sweep --config=sweeps/length.py --workdir=runs/length
    python -m scaling.sweep --config=sweeps/length.py --workdir=runs/length \\
        --config.vary.steps="(150,600)" --config.vary.seed="(2,)"

`--config.base.data.source=arrayrecord:DIR` for tiles in another folder. Three hours on two cores, two of them for the
two long runs. The decisions were made beforehand, in `results/redundancy/PLAN.md`. `results/README.md` describes
`../shared/data`.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from scaling.studies.sweeps.plan import SweepConfig, sweep_config
from scaling.studies.sweeps.variation import NamedConfig, product
from scaling.training.config import TrainConfig
from scaling.training.recipes import vit_ti8_recipe


def get_config() -> ConfigDict:
    settings = SweepConfig(study="length", base=vit_ti8_recipe("arrayrecord:runs/data/hurricane"))
    return sweep_config(settings, steps=(150, 600, 2400), seed=(0, 1))


def runs(base: TrainConfig, vary: dict[str, Any]) -> Iterator[NamedConfig]:
    return product(base, vary)
