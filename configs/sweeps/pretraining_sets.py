"""The same encoder on 4,000 images of three sets: does the retention of cuts depend on the pretraining data? Three
hours on two cores.

    for set in hurricane eurosat tinyimagenet; do
      python -m scaling.prepare --source=zip:../shared/data/$set/images.zip --split=train,test --size=64 \\
          --output=runs/data64/$set
    done
    python -m scaling.sweep --config=sweeps/pretraining_sets.py --workdir=runs/pretraining_sets

`--config.vary.data=DIR` for prepared sets in another folder. Batches have 32 images, a quarter of those of
`hurricane_ti8.py`: as many images then have four times the updates, after which the encoders differ more from random
weights. Everything else is the recipe of `hurricane_ti8.py`. All images have 64 pixels (those of `hurricane` are
downsampled), so that no set is seen in more detail than another. Run names begin with the seed: the first three to
finish are one of each set. The decisions made beforehand are in `results/redundancy/PLAN.md`. `results/README.md`
describes `../shared/data`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from scaling.studies.sweeps.plan import SweepConfig, sweep_config
from scaling.studies.sweeps.variation import NamedConfig, vary
from scaling.training.config import TrainConfig
from scaling.training.recipes import vit_ti8_recipe, with_optimizer


def get_config() -> ConfigDict:
    base = with_optimizer(dataclasses.replace(vit_ti8_recipe(""), batch_size=32), base_lr=4e-3, warmup=200)
    settings = SweepConfig(study="pretraining_sets", base=base)
    sets = ("hurricane", "eurosat", "tinyimagenet")
    return sweep_config(settings, seed=(0, 1, 2), sets=sets, data="runs/data64", images=4000, steps=2400)


def runs(base: TrainConfig, fields: dict[str, Any]) -> Iterator[NamedConfig]:
    for seed in fields["seed"]:
        for name in fields["sets"]:
            data = dataclasses.replace(base.data, source=f"arrayrecord:{fields['data']}/{name}")
            own = {"images": fields["images"], "steps": fields["steps"], "seed": seed}
            _, run = vary(dataclasses.replace(base, data=data), own)
            yield f"seed{seed}_{name}", run
