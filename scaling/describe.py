"""Parameters and operations of a model, without building it.

    python -m scaling.describe --model=vit_l12x4 [--json]
    python -m scaling.describe --config=vit_h.py [--config.model.patch_size=16] [--json]

`flops` is the forward pass of one whole image (what extracting features costs); `pretraining` is the forward pass of
one image in masked pretraining, where the encoder sees the visible patches only. A training step costs three of those.
"""

import json
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from scaling import cli
from scaling.analysis import compute
from scaling.config import from_config_dict
from scaling.errors import UserError
from scaling.models.mae import MAEConfig, abstract_mae
from scaling.models.variants import mae
from scaling.training.config import TrainConfig

_MODEL = flags.DEFINE_string("model", None, "Name of an architecture, for example vit_l12x4.")
_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, instead of --model.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")


def describe(name: str, c: MAEConfig) -> dict[str, Any]:
    """The description as a JSON-serialisable dictionary."""
    c.check()
    shapes, names = abstract_mae(c)
    return {
        "model": name,
        "image": {"size": c.image_size, "bands": c.bands, "patch_size": c.patch_size, "patches": c.patches},
        "params": compute.parameter_counts(names, shapes),
        "flops": compute.flops(names, shapes, compute.token_counts(c, masked=False)),
        "pretraining": compute.flops(names, shapes, compute.token_counts(c, masked=True)),
    }


def _print(description: dict[str, Any]) -> None:
    image = description["image"]
    title = "{model}: {size} x {size} pixels, {bands} bands, patch {patch_size}".format(**image, **description)
    table = Table("component", "parameters", title=title)
    columns = [(kind, convention) for kind in ("flops", "pretraining") for convention in compute.CONVENTIONS]
    for kind, convention in columns:
        what = "whole image" if kind == "flops" else "pretraining"
        table.add_column(f"{what}\n{convention}, G", justify="right")
    for part in (*compute.COMPONENTS[:-1], "encoder", "decoder"):
        values = [f"{description[kind][convention][part] / 1e9:,.3f}" for kind, convention in columns]
        table.add_row(part, f"{description['params'][part]:,}", *values, style="bold" if part == "encoder" else None)
    table.add_row("total", f"{description['params']['total']:,}")
    table.columns[1].justify = "right"
    Console().print(table)


def main(argv: list[str]) -> None:
    del argv
    if (_MODEL.value is None) == (_CONFIG.value is None):
        raise UserError("give either --model=NAME or --config=FILE")
    if _MODEL.value:
        name, model = _MODEL.value, mae(_MODEL.value)
    else:
        name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
        model = from_config_dict(TrainConfig, _CONFIG.value).model
    description = describe(name, model)
    print(json.dumps(description)) if _JSON.value else _print(description)


if __name__ == "__main__":
    cli.run(main)
