"""The best shape for a compute budget: a star of shapes, one dimension varied at a time, each trained for three
lengths.

    python -m scaling.sweep --config=sweeps/aspect.py --workdir=runs/aspect
    python -m scaling.laws runs/aspect/rows.jsonl --x=embed,train_flops --form=shape --where=mlp=512 --where=layers=6
    python -m scaling.laws runs/aspect/rows.jsonl --x=layers,train_flops --form=shape --where=embed=128 --where=mlp=512
    python -m scaling.laws runs/aspect/rows.jsonl --x=mlp,train_flops --form=shape --where=embed=128 --where=layers=6

The star sweep of Alabdulmohsin et al. (2305.13035), whose centre is (1968, 40, 6144), at a size for two cores.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from scaling.studies.sweeps.plan import SweepConfig, sweep_config
from scaling.studies.sweeps.variation import NamedConfig, vary
from scaling.training.config import TrainConfig
from scaling.training.recipes import small_mae_recipe


def get_config() -> ConfigDict:
    return sweep_config(
        SweepConfig(study="aspect", base=small_mae_recipe()),
        centre={"width": 128, "depth": 6, "mlp": 512},
        width=(32, 64, 96, 128, 192),
        depth=(2, 3, 4, 6, 8),
        mlp=(128, 256, 384, 512, 768),
        steps=(100, 200, 400),
    )


def runs(base: TrainConfig, fields: dict[str, Any]) -> Iterator[NamedConfig]:
    shapes = {
        tuple({**fields["centre"], name: value}.items()): None
        for name in ("width", "depth", "mlp")
        for value in fields[name]
    }
    for shape in shapes:
        for steps in fields["steps"]:
            yield vary(base, {**dict(shape), "steps": steps, "parametrization": "mup"})
