"""Regular and slimmable pretraining, by MAE and by MoCo, at equal steps and at equal operations, with three seeds.

    python -m scaling.prepare --source=zip:../shared/data/hurricane/images.zip --split=train,test --size=64 \\
        --output=runs/data64/hurricane
    python -m scaling.sweep --config=sweeps/slimmable.py --workdir=runs/slimmable --plan
    python -m scaling.sweep --config=sweeps/slimmable.py --workdir=runs/slimmable

`regular` and `slimmable` have the same number of steps; `longer` is regular, with as many operations as `slimmable`.
The encoder is small, so that a core trains all of them in an hour. `--config.base.data.source=arrayrecord:DIR` for
prepared tiles in another folder. The decisions made beforehand are in `results/slimmable/PLAN.md`.
`results/README.md` describes `../shared/data`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from scaling.compute.counting import training_flops
from scaling.objectives import objective_config
from scaling.studies.sweeps.plan import SweepConfig, sweep_config
from scaling.studies.sweeps.variation import NamedConfig, vary
from scaling.training.config import TrainConfig
from scaling.training.recipes import slimmable, vit_ti8_recipe, with_optimizer

WIDTHS = (0.05, 0.1, 0.25, 0.5, 0.75)  # and the full one
DISTILLED = {"mae": "outputs", "moco": "similarities"}
LENGTH = {"mae": 600, "moco": 300}


def get_config() -> ConfigDict:
    c = vit_ti8_recipe("arrayrecord:runs/data64/hurricane")
    model = dataclasses.replace(c.model, width=96, depth=4, heads=3, head_dim=32, mlp=384, image_size=48)
    often = {"checkpoint_every": c.steps, "eval_every": c.steps // 4}
    c = dataclasses.replace(c, model=model, batch_size=64, data=dataclasses.replace(c.data, eval_examples=512), **often)
    base = with_optimizer(c, base_lr=4e-3)  # a peak of 0.001
    settings = SweepConfig(study="slimmable", base=base)
    return sweep_config(settings, seed=(0, 1, 2), objective=("mae", "moco"), kind=("regular", "slimmable", "longer"))


def runs(base: TrainConfig, fields: dict[str, Any]) -> Iterator[NamedConfig]:
    for seed in fields["seed"]:
        for objective in fields["objective"]:
            for kind in fields["kind"]:
                yield f"{objective}_{kind}_seed{seed}", vary(_run(base, objective, kind), {"seed": seed})[1]


def _run(base: TrainConfig, objective: str, kind: str) -> TrainConfig:
    regular = vary(_with_objective(base, objective), {"steps": LENGTH[objective]})[1]
    wrapped = slimmable(regular, widths=WIDTHS, distillation=DISTILLED[objective])
    if kind == "longer":
        return vary(regular, {"steps": round(regular.steps * _operations(wrapped) / _operations(regular))})[1]
    return {"regular": regular, "slimmable": wrapped}[kind]


def _with_objective(base: TrainConfig, name: str) -> TrainConfig:
    """Both encoders are of one kind: the same positions, and the mean of the patches is what is contrasted."""
    if name == "mae":
        found = objective_config("mae", decoder_width=64, decoder_depth=1, decoder_heads=2)
        return dataclasses.replace(base, objective=found)
    found = objective_config("moco", hidden=256, outputs=128, pool="mean")
    return dataclasses.replace(base, objective=found, data=dataclasses.replace(base.data, photometric="byol"))


def _operations(c: TrainConfig) -> int:
    """Those of a training step, per image."""
    shapes, names = c.objective.abstract(c.model)
    return training_flops(names, shapes, c.objective.tokens(c.model))
