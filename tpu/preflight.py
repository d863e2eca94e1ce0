"""Compiles the training step of a config for a TPU slice, on any Linux machine, before one is paid for.

    python -m tpu.preflight --config=vit_g12x4.py --topology=v5e:16x16 [--config.path.to.field=value ...]
        [--json=FILE] [--price=USD_PER_CHIP_HOUR] [--mfu=0.4]
    python -m tpu.preflight --config=vit_g12x4.py --topologies=v5e:16x16,v5p:4x4x8
    python -m tpu.preflight --config=vit_22b.py --topology=v5p:4x4x8 --fit
    python -m tpu.preflight --config=vit_22b.py --smallest=v5e,v5p
    python -m tpu.preflight --table=results/preflight [--configs=A,B] [--topologies=X,Y | --smallest=CHIPS]

It is the step that `scaling.train` runs there, compiled by the compiler that would compile it. Says whether it fits,
the HBM it takes, what the chips send each other, how long a step must take at least and what the schedule costs. What
does not fit ends with exit code 2 and the compiler's figures. `--fit` searches remat policy and images held at once,
`--smallest` the least chips of a generation that hold the same batch, in microbatches where it takes them.
"""

import json
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from scaling import cli
from scaling.config import from_config_dict
from scaling.errors import UserError
from scaling.paths import check_file, write_whole
from scaling.training.config import TrainConfig
from tpu import table
from tpu.fit import fit, overrides, smallest
from tpu.report import Row, preflight, scheduled, show, show_table
from tpu.topology import CHIPS, Topology, parse

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, by path or by bare name.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "Slice to compile for, such as v5e:16x16.")
_TOPOLOGIES = flags.DEFINE_list("topologies", [], "Several slices, compared in one table.")
_JSON = cli.define_path("json", None, "Also write the row (several: the rows) to this file.")
_MFU = flags.DEFINE_float("mfu", 0.4, "Utilisation that the schedule is computed with.")
_PRICE = flags.DEFINE_float("price", None, "US dollars a chip-hour, for the cost of the schedule.")
_FIT = flags.DEFINE_bool("fit", False, "Search the fastest remat policy and accumulation that fit.")
_SMALLEST = flags.DEFINE_list("smallest", [], "Generations, such as v5e: search the smallest slice of each that fits.")
_TABLE = cli.define_path("table", None, "Fill the table of every config on every slice in this folder.")
_CONFIGS = flags.DEFINE_list("configs", [], "With --table: only these configs.")


def main(argv: list[str]) -> None:
    _check(argv)
    places = [parse(name) for name in _TOPOLOGIES.value or filter(None, [_TOPOLOGY.value])]
    if _TABLE.value:
        _fill_table(Path(_TABLE.value), [place.name for place in places])
        return
    if _CONFIG.value is None or not (places or _SMALLEST.value):
        raise UserError("give --config=FILE and --topology=CHIP:SHAPE or --smallest=CHIP, or --table=FOLDER")
    if _FIT.value and len(places) > 1:
        raise UserError("--fit searches on one --topology")
    config = from_config_dict(TrainConfig, _CONFIG.value)
    if _SMALLEST.value:
        rows = [row for kind in _SMALLEST.value for row in _searched(config, kind)]
    else:
        rows = _fitted(config, places[0]) if _FIT.value else [_row(config, place) for place in places]
    if _JSON.value:
        write_whole(_JSON.value, json.dumps(rows[0] if len(rows) == 1 else rows, indent=2) + "\n")
    if len(rows) > 1:
        show_table(rows)
    elif rows[0]["fits"]:
        show(rows[0])
    refused = [row["why"] for row in rows if not row["fits"]]
    if refused and not (_FIT.value or _SMALLEST.value):
        raise UserError("; ".join(refused))


def _check(argv: list[str]) -> None:
    """Raises a UserError for flags that are wrong, or that would do nothing together."""
    cli.check_no_words(argv)
    if not 0 < _MFU.value <= 1 or (_PRICE.value is not None and _PRICE.value < 0):
        raise UserError(f"--mfu={_MFU.value} is a share, above 0 and at most 1; a --price is not negative")
    for kind in _SMALLEST.value:
        if kind not in CHIPS:
            raise UserError(f"--smallest={kind}: the chips are {', '.join(CHIPS)}")
    if _SMALLEST.value and (_TOPOLOGY.value or _TOPOLOGIES.value or _FIT.value):
        raise UserError("--smallest searches the slice: give it without --topology, --topologies and --fit")
    if _TOPOLOGY.value and _TOPOLOGIES.value:
        raise UserError("give one --topology, or several with --topologies")
    if _CONFIGS.value and not _TABLE.value:
        raise UserError("--configs are of a --table; one is --config=FILE")
    if _TABLE.value and (_CONFIG.value is not None or _TOPOLOGY.value or _JSON.value or _FIT.value):
        raise UserError(
            "--table is of --configs and --topologies: give no --config, --topology, --json or --fit with it"
        )
    if _JSON.value:
        check_file("json", _JSON.value)


def _row(config: TrainConfig, place: Topology) -> Row:
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    return scheduled(preflight(name, config, place), _MFU.value, _PRICE.value)


def _fitted(config: TrainConfig, place: Topology) -> list[Row]:
    """Searches; prints the flags of the best variant, and returns a row for each that was tried."""
    best, rows = fit(config, place, _row)
    print(f"the fastest that fits: {overrides(best)}")
    return rows


def _searched(config: TrainConfig, kind: str) -> list[Row]:
    """Searches; prints the smallest slice, and returns a row for each that was tried."""
    rows = smallest(config, kind, _row)
    print(f"the smallest that fits: {table.sentence(rows[-1])}")
    return rows


def _fill_table(folder: Path, places: list[str]) -> None:
    names = [Path(name).stem for name in _CONFIGS.value] or table.shipped()
    if _SMALLEST.value:
        rows = table.fill_smallest(folder, names, _SMALLEST.value, _MFU.value, _PRICE.value)
    else:
        rows = table.fill(folder, names, places or list(table.TOPOLOGIES), _MFU.value, _PRICE.value)
    show_table(rows)


if __name__ == "__main__":
    cli.run(main)
