"""Compiles the training step of a config for a TPU slice on any Linux machine, before you pay for the slice.

    python -m tpu.preflight --config=vit_g12x4.py --topology=v5e:16x16 [--config.path.to.field=value ...]
        [--json=FILE] [--price=USD_PER_CHIP_HOUR] [--mfu=0.4]
    python -m tpu.preflight --config=vit_g12x4.py --topologies=v5e:16x16,v5p:4x4x8
    python -m tpu.preflight --config=vit_22b.py --topology=v5p:4x4x8 --fit
    python -m tpu.preflight --config=vit_22b.py --smallest=v5e,v5p
    python -m tpu.preflight --config=segment_g12x4.py --model=vit_g12x4 --topology=v5e:16x16
    python -m tpu.preflight --table=results/preflight [--configs=A,B] [--topologies=X,Y [--fit] | --smallest=CHIPS]

This needs libtpu: in the checkout, `pip install -e ".[tpu]"`. The step and the compiler are those of a run of
`scaling.train` on the slice or, for a fine-tuning recipe and an encoder given by --model, of `scaling.finetune`. The
command prints whether the step fits, the HBM it takes, the bytes that the chips send each other, a lower bound on the
step time, and the cost of the whole schedule. If the step does not fit, the command prints the compiler's figures and
exits with code 2. `--fit` searches for the fastest combination of remat policy, microbatch size and mesh that fits;
`--smallest` finds the smallest slice of a generation on which the same global batch fits, split into microbatches if
necessary.
"""

import functools
import json
from pathlib import Path

from ml_collections import config_flags

from scaling import cli
from scaling.core.config import config_of
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_file
from scaling.data.sources.registry import open_source
from scaling.data.spot_checks import layout
from scaling.models.variants import encoder
from scaling.models.vit import abstract_vit
from scaling.slimming.cutting import axis_sizes
from scaling.slimming.widths import mode_plan
from scaling.tasks.resolving import check_targets, encoder_for, with_encoder
from scaling.training.config import FinetuneConfig, TrainConfig
from scaling.training.stored_config import run_kind
from tpu.compiler import table
from tpu.compiler.fit import fastest, overrides, smallest
from tpu.compiler.page import sentence
from tpu.compiler.preflight_rows import PreflightRow, preflight, scheduled, show, show_table
from tpu.compiler.step import Config
from tpu.compiler.topology import CHIPS, Topology, parse


def define_flags(define: cli.Define) -> None:
    define.config(run_kind)
    define.string("model", None, "Encoder for a fine-tuning config, such as vit_g12x4.")
    define.string("topology", None, "Slice to compile for, such as v5e:16x16.")
    define.list("topologies", [], "Several slices, compared in one table.")
    define.path("json", None, "File for the row, or rows, as JSON.")
    define.float("mfu", 0.4, "MFU assumed when computing the time and cost of the schedule.")
    define.float("price", None, "US dollars per chip-hour, for the cost of the schedule.", lower_bound=0)
    define.bool("fit", False, "Search for the fastest remat policy, accumulation and mesh that fit.")
    define.list("smallest", [], "TPU generations, such as v5e: find the smallest slice of each that fits.")
    define.path("table", None, "Folder with a table of configs on slices, such as results/preflight, to fill.")
    define.list("configs", [], "Configs of the --table.")


@cli.command(define_flags)
def main(argv: list[str], flags: cli.Flags) -> None:
    _check(flags)
    places = [parse(name) for name in flags.topologies or filter(None, [flags.topology])]
    if flags.table:
        _fill_table(flags, Path(flags.table), [place.name for place in places])
        return
    if flags.config is None or not (places or flags.smallest):
        raise UserError(
            "--config and --topology: are missing; "
            "give --config=FILE and --topology=CHIP:SHAPE or --smallest=CHIP, or --table=FOLDER"
        )
    if flags.fit and len(places) > 1:
        raise UserError("--fit: searches on one slice; give exactly one --topology")
    config = _config(flags)
    if flags.smallest:
        rows = [row for kind in flags.smallest for row in _searched(flags, config, kind)]
    else:
        rows = _fitted(flags, config, places[0]) if flags.fit else [_row(flags, config, place) for place in places]
    if flags.json:
        write_whole(flags.json, json.dumps(rows[0] if len(rows) == 1 else rows, indent=2) + "\n")
    if len(rows) > 1:
        show_table(rows)
    elif rows[0]["fits"]:
        show(rows[0])
    refused = [row["why"] for row in rows if not row["fits"]]
    if refused and not (flags.fit or flags.smallest):
        raise UserError("; ".join(refused))


def _check(flags: cli.Flags) -> None:
    """Raises a UserError for flags that are wrong, or have no effect together."""
    if not 0 < flags.mfu <= 1:
        raise UserError(f"--mfu={flags.mfu}: must be above 0 and at most 1; give such a fraction")
    for kind in flags.smallest:
        if kind not in CHIPS:
            raise UserError(f"--smallest={kind}: the chips are {', '.join(CHIPS)}; give one")
    if flags.smallest and (flags.topology or flags.topologies or flags.fit):
        raise UserError("--smallest: chooses the slice itself; leave out --topology, --topologies and --fit")
    if flags.topology and flags.topologies:
        raise UserError(
            "--topology and --topologies: exclude each other; give one --topology, or several with --topologies"
        )
    if flags.configs and not flags.table:
        raise UserError("--configs: is only for --table; use --config=FILE")
    if flags.table and (flags.config is not None or flags.topology or flags.json):
        raise UserError("--table: takes --configs and --topologies; leave out --config, --topology and --json")
    if flags.table and flags.fit and not (flags.configs and flags.topologies):
        raise UserError("--table with --fit: searches take hours; name the --configs and --topologies")
    if flags.json:
        check_file("json", flags.json)


def _config(flags: cli.Flags) -> Config:
    """The configuration of pretraining; or of fine-tuning, with everything that follows from the encoder and the
    images except their mean.
    """
    if "epochs" not in flags.config:
        if flags.model:
            raise UserError(
                f"--model={flags.model}: only for a fine-tuning recipe; this config has its own model; leave it out"
            )
        return config_of(TrainConfig, flags.config)
    c = config_of(FinetuneConfig, flags.config)
    c.check()
    if not flags.model:
        raise UserError("--config: fine-tuning needs an encoder; give one, as --model=vit_g12x4")
    source = open_source(c.data.source, c.data.split)
    check_targets(source.info, c)
    model = encoder(flags.model, bands=len(c.data.bands) or layout(source, ())[0])
    shapes, names = abstract_vit(model)
    model = model.resized(mode_plan(axis_sizes(shapes, names), c.width_ratio, c.mode))
    return with_encoder(c, encoder_for(model, c), source)


def _row(flags: cli.Flags, config: Config, place: Topology) -> PreflightRow:
    name = Path(config_flags.get_config_filename(flags["config"])).stem
    return scheduled(preflight(name, config, place), flags.mfu, flags.price)


def _fitted(flags: cli.Flags, config: Config, place: Topology) -> list[PreflightRow]:
    """Searches; prints the flags of the best variant, and returns a row for each variant tried."""
    best, rows = fastest(config, place, functools.partial(_row, flags))
    print(f"the fastest that fits: {overrides(best)}")
    return rows


def _searched(flags: cli.Flags, config: Config, kind: str) -> list[PreflightRow]:
    """Searches; prints the smallest slice, and returns a row for each one tried."""
    rows = smallest(config, kind, functools.partial(_row, flags))
    print(f"the smallest that fits: {sentence(rows[-1])}")
    return rows


def _fill_table(flags: cli.Flags, folder: Path, places: list[str]) -> None:
    wanted = table.chosen([Path(name).stem for name in flags.configs], places)
    names = list(dict.fromkeys(cell.name for cell in wanted))
    if flags.fit:
        rows = table.fill_fastest(folder, names, places, flags.mfu, flags.price)
    elif flags.smallest:
        rows = table.fill_smallest(folder, names, flags.smallest, flags.mfu, flags.price)
    else:
        rows = table.fill(folder, wanted, flags.mfu, flags.price)
    show_table(rows)


if __name__ == "__main__":
    cli.run(main)
