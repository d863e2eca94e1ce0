"""Parameters and operations of a model, without building it.

    python -m scaling.describe --model=vit_l12x4 [--json]
    python -m scaling.describe --model=vit_b --bands=10 --widths=published [--against=FILE.json]
    python -m scaling.describe --config=vit_h.py [--config.model.patch_size=16] [--json]
    python -m scaling.describe --checkpoint=DIR [--step=N] [--json]
    python -m scaling.describe --model=vit_l --chip="NVIDIA H100 80GB HBM3" [--json]

`flops` are the operations of the forward pass of one whole image (the cost of extracting its features). `pretraining`
are those of the forward pass of one image in pretraining: in MAE the encoder sees only the visible patches, in MoCo two
views; for slimmable training they are the sum over the widths that a step trains, averaged over steps. A training step
costs three times `pretraining` per image and, in MoCo, once `forward_only`: the forward pass of the momentum encoder
(the keys), which has no gradients.

`widths` are the operations of the slimmed encoder (mode `inner`) for one whole image, relative to full width. For a
checkpoint (trained, imported or cut) the output describes the encoder, the images that it takes, and its origin.

`--chip` adds the limits of one device, by the name that JAX gives it: its memory, the memory that parameters and AdamW
take in float32, and the images/s at its bfloat16 peak; a measured rate divided by that is the utilisation (MFU).

`--against` compares with published values, in the convention `published`: JSON, {model: {width: value}}.
"""

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etils import epath
from ml_collections import config_flags
from rich.table import Table

from scaling import cli
from scaling.compute import counting
from scaling.compute.hardware import CHIPS
from scaling.compute.width_axis import read_reference, width_axis, width_table
from scaling.core.config import config_of
from scaling.core.console import console
from scaling.core.errors import UserError
from scaling.models.variants import PUBLIC, Architecture, abstract_model, architecture
from scaling.objectives import ObjectiveConfig, objective_config
from scaling.slimming.widths import PUBLISHED_WIDTHS
from scaling.training.config import TrainConfig
from scaling.training.stored_config import CutConfig

if TYPE_CHECKING:
    from scaling.encoders.encoder import Encoder


def describe(name: str, a: Architecture, objective: ObjectiveConfig | None = None) -> dict[str, Any]:
    """The description as a JSON-serialisable dictionary, of an encoder alone or with the networks of its pretraining.

    Raises:
      UserError: the architecture cannot be built.
    """
    c = a.config
    c.check()
    if objective:
        objective.check(c)
    shapes, names = objective.abstract(c) if objective else abstract_model(a)
    description = {
        "model": name,
        "image": {"size": c.sides, "bands": c.bands, "patch_size": c.patch_size, "patches": c.patches},
        "explicit_attention": [network or "encoder" for network in a.explicit_attention],
        "params": counting.parameter_counts(names, shapes),
        "flops": counting.image_flops(a, names, shapes, objective.tokens(c, whole=True) if objective else None),
    }
    if objective:
        tokens = objective.tokens(c)
        description["pretraining"] = counting.flops(names, shapes, tokens)
        if tokens.forward_only:
            description["forward_only"] = counting.flops(names, shapes, tokens.forward_only)
    return description


def on_chip(description: dict[str, Any], kind: str) -> dict[str, Any]:
    """Memory and peak rate of a device of that kind, for the described model.

    Raises:
      UserError: the kind is not in the table of chips.
    """
    if kind not in CHIPS:
        raise UserError(f"--chip={kind}: must be the name that JAX gives a device, one of {', '.join(CHIPS)}")
    chip, forward = CHIPS[kind], description["flops"]["full"]["encoder"]
    found = {
        "kind": kind,
        "memory_gib": chip.memory / 2**30,
        "state_gib": 3 * 4 * description["params"]["total"] / 2**30,  # parameters and two moments
        "features_per_second": chip.peak_flops / forward,
    }
    if "pretraining" in description:
        passes = {"pretraining": 3, "forward_only": 1}
        step = sum(
            times * sum(counting.components(description[kind]["full"]).values())
            for kind, times in passes.items()
            if kind in description
        )
        found["pretraining_per_second"] = chip.peak_flops / step
    return found


def pretrained_by(name: str) -> ObjectiveConfig | None:
    """The objective with which the configs pretrain this architecture; None for a public model."""
    return None if name in PUBLIC else objective_config("mae")


def _print(description: dict[str, Any]) -> None:
    image = description["image"]
    height, width = image["size"] if isinstance(image["size"], list) else (image["size"],) * 2
    title = "{model}: {} x {} pixels, {bands} bands, patch {patch_size}".format(height, width, **image, **description)
    table = Table("component", title=title)
    table.add_column("parameters", justify="right", no_wrap=True)
    kinds = {"flops": "whole image", "pretraining": "pretraining", "forward_only": "forward only"}
    columns = [(kind, convention) for kind in kinds if kind in description for convention in counting.CONVENTIONS]
    for kind, convention in columns:
        table.add_column(f"{kinds[kind]}\n{convention}, G", justify="right")
    others = [part for part in description["params"] if part not in (*counting.ENCODER, "encoder", "head", "total")]
    for part in (*counting.ENCODER, "encoder", *others):
        values = [f"{description[kind][convention][part] / 1e9:,.3f}" for kind, convention in columns]
        table.add_row(part, f"{description['params'][part]:,}", *values, style="bold" if part == "encoder" else None)
    table.add_row("total", f"{description['params']['total']:,}")
    console().print(table)


def _print_chip(found: dict[str, Any]) -> None:
    rates = {kind: found.get(f"{kind}_per_second") for kind in ("pretraining", "features")}
    said = ", ".join(f"{rate:,.0f} images/s in {kind}" for kind, rate in rates.items() if rate)
    memory = f"{found['state_gib']:.2f} of {found['memory_gib']:.0f} GiB for parameters and AdamW"
    console().print(f"{found['kind']}: {memory}; at its peak {said}", highlight=False, markup=False)


def _widths(flags: cli.Flags) -> tuple[float, ...]:
    text = flags.widths or ""
    if text == "published":
        return PUBLISHED_WIDTHS
    try:
        return tuple(float(s) for s in text.split(",") if s)
    except ValueError:
        raise UserError(f"--widths={text}: must be `published`, or numbers such as 0.1,0.25") from None


def _model(flags: cli.Flags) -> tuple[str, Architecture, ObjectiveConfig | None]:
    """Name, architecture and pretraining objective that the flags select."""
    if [flags.model, flags.config, flags.checkpoint].count(None) != 2:
        raise UserError("give either --model=NAME or --config=FILE, or --checkpoint=DIR")
    flag_values = {"bands": flags.bands, "image_size": flags.image_size}
    overrides = {field: value for field, value in flag_values.items() if value is not None}
    if flags.model:
        return flags.model, architecture(flags.model, **overrides), pretrained_by(flags.model)
    if flags.checkpoint:
        for field in overrides:
            raise UserError(f"--{field}: the --checkpoint has its own; leave it out")
        return epath.Path(flags.checkpoint).name, _encoder(flags).architecture, None
    for field in overrides:
        raise UserError(f"--{field}: with --config=FILE, use --config.model.{field}")
    name = Path(config_flags.get_config_filename(flags["config"])).stem
    c = config_of(TrainConfig, flags.config)
    return name, Architecture(c.model), c.objective


@functools.lru_cache(maxsize=1)
def _encoder(flags: cli.Flags) -> "Encoder":
    """The encoder of the checkpoint, without parameters."""
    from scaling.encoders.loading import describe_encoder  # slow, and not needed without a checkpoint

    return describe_encoder(flags.checkpoint, flags.step)


def define_flags(define: cli.Define) -> None:
    define.string("model", None, "Name of an architecture, for example vit_l12x4.")
    define.integer("bands", None, "Bands of the image, instead of the --model's own.")
    define.integer("image_size", None, "Side of the image in pixels, instead of the --model's own.")
    define.config(TrainConfig, "Config file, instead of --model.")
    define.path("checkpoint", None, "The --workdir of a run, or a checkpoint of scaling.convert.")
    define.integer("step", None, "Step of the checkpoint; the newest by default.")
    define.string("widths", None, "Relative operations at these widths: published, or 0.1,0.25,…")
    define.path("against", None, "JSON file of published values to compare with --widths.")
    define.string("chip", None, "Name of a device as JAX gives it, to add its memory and peak rate.")
    define.bool("json", False, "Print JSON.")


@cli.command(define_flags, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    name, model, objective = _model(flags)
    widths = _widths(flags)
    if flags.against and not widths:
        raise UserError("--against: needs widths; give --widths=published or numbers")
    reference = read_reference(epath.Path(flags.against), name) if flags.against else None
    description = describe(name, model, objective)
    if flags.checkpoint:
        from scaling.encoders.origin import origin

        description["origin"] = origin(_encoder(flags))
    if widths:
        description["widths"] = width_axis(model, widths, reference)
    if flags.chip:
        description["chip"] = on_chip(description, flags.chip)
    if flags.json:
        print(json.dumps(description))
        return
    _print(description)
    for field, value in description.get("origin", {}).items():
        if value in ("", []):
            continue
        said = "; ".join(str(CutConfig(**cut)) for cut in value) if field == "cuts" else value
        console().print(f"{field:<14} {said}", highlight=False, markup=False)
    if flags.chip:
        _print_chip(description["chip"])
    if widths:
        console().print(width_table(description["widths"]))


if __name__ == "__main__":
    cli.run(main)
