"""Encoders of seven widths at four budgets of compute: how parameters and images should grow together.

    python -m scaling.sweep --config=sweeps/isoflop.py --workdir=runs/isoflop
    python -m scaling.laws runs/isoflop/rows.jsonl --x=params_total,samples_seen,train_flops --form=isoflop

Every run of a budget costs the same: the narrower the encoder, the more images it sees. Operations are counted in the
`full` convention, with the decoder. No run is the beginning of a longer one: each has its own learning-rate schedule.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from scaling.core.errors import UserError
from scaling.studies.sweeps.plan import SweepConfig, pretraining_row, sweep_config
from scaling.studies.sweeps.variation import NamedConfig, vary
from scaling.training.config import TrainConfig
from scaling.training.recipes import small_mae_recipe


def get_config() -> ConfigDict:
    settings = SweepConfig(study="isoflop", base=small_mae_recipe())
    return sweep_config(
        settings, teraflop=(2.0, 4.0, 8.0, 16.0), width=(32, 64, 96, 128, 160, 192, 256), parametrization="mup", seed=0
    )


def runs(base: TrainConfig, fields: dict[str, Any]) -> Iterator[NamedConfig]:
    for budget in fields["teraflop"]:
        for width in fields["width"]:
            same = {"parametrization": fields["parametrization"], "seed": fields["seed"]}
            _, sized = vary(base, {"width": width, **same})
            steps = round(1e12 * budget / (pretraining_row("", "", sized).train_flops / sized.steps))
            if steps < 1:
                raise UserError(f"vary.teraflop={budget} does not pay for one step at width {width}")
            _, run = vary(base, {"width": width, "steps": steps, **same})
            yield f"teraflop{budget:g}_width{width}", run
