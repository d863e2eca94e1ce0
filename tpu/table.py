"""Every config on every slice: rows in a file that only grows, and a page made from them.

A cell is identified by its config as it is now, its slice and the compiler's version. Finished cells are never compiled
again, so the table can be interrupted and continued.
"""

import dataclasses
import hashlib
import json
import runpy
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.progress import Progress

from scaling.config import config_dict, find_config, from_config_dict
from scaling.errors import UserError
from scaling.training.config import TrainConfig
from tpu import topology as slices
from tpu.report import COLUMNS, Row, cells, preflight, scheduled
from tpu.step import compiler_options

TOPOLOGIES = ("v5e:8x8", "v5e:16x16", "v4:4x4x8", "v5p:4x4x8", "v6e:16x16")
HEADER = """# Does it fit?

Every config with its defaults, compiled by the TPU compiler for slices that were not there:

    make preflight

`rows.jsonl` has one row a cell, with collectives, traffic and times; an interrupted table goes on where it stopped.
HBM is per chip, of what the compiler leaves to a program. The MFU bound is that of the roofline (`tpu/roofline.py`):
no measurement, and no promise. Seconds of compiling are wall time on {cores} cores that other work was using too;
more than ten minutes: suspended in between.

"""


def shipped() -> list[str]:
    """Names of the configs that are shipped for pods."""
    return sorted(path.stem for path in find_config("vit_b.py").parent.glob("vit_*.py"))


def load(name: str) -> TrainConfig:
    """A config file with its defaults."""
    return from_config_dict(TrainConfig, runpy.run_path(str(find_config(name)))["get_config"]())


def fill(folder: Path, names: list[str], topologies: list[str], mfu: float, price: float | None) -> list[Row]:
    """Compiles the cells that are missing, in the order given, and rewrites the page after each."""
    file = folder / "rows.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    lines = file.read_text().splitlines() if file.exists() else []
    rows = {(row["config"], row["topology"]): row for row in map(json.loads, lines)}
    cells_of = [(name, where) for name in names for where in topologies]
    with Progress() as progress:
        task = progress.add_task("compiling", total=len(cells_of))
        for name, where in cells_of:
            progress.update(task, description=f"{name} on {where}")
            c, place = load(f"{name}.py"), slices.parse(where)
            identity = _identity(c, place)
            if rows.get((name, where), {}).get("identity") != identity:
                row = rows[name, where] = _cell(name, c, place) | {"identity": identity}
                with file.open("a") as f:
                    f.write(json.dumps(row) + "\n")
                _write_page(folder, [scheduled(row, mfu, price) for row in rows.values()])
            progress.advance(task)
    return [scheduled(rows[cell], mfu, price) for cell in cells_of]


def _cell(name: str, c: TrainConfig, place: slices.Topology) -> Row:
    try:
        return preflight(name, c, place)
    except UserError as e:  # it cannot run there at all
        return {"config": name, "topology": place.name, "chips": place.chips, "fits": False, "why": f"{name}: {e}"}


def _identity(c: TrainConfig, place: slices.Topology) -> str:
    """Of what is compiled; the data and how often it is saved do not matter, nor does a field that has its default: one
    that is added later changes nothing.
    """
    same = TrainConfig()
    fields = _changed(
        config_dict(dataclasses.replace(c, data=same.data, checkpoint=same.checkpoint)), config_dict(same)
    )
    text = json.dumps(
        [fields, place.name, compiler_options(place), slices.compiler_version()], sort_keys=True, default=str
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _changed(values: ConfigDict, defaults: ConfigDict) -> dict[str, Any]:
    return {
        name: _changed(value, defaults[name]) if isinstance(value, ConfigDict) else value
        for name, value in values.items()
        if value != defaults[name]
    }


def _write_page(folder: Path, rows: list[Row]) -> None:
    rows = sorted(rows, key=lambda row: (row["config"], row["topology"]))
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    refused = [f"- {row['why']}" for row in rows if not row["fits"]]
    text = HEADER.format(cores=max(row.get("cores", 0) for row in rows)) + "\n".join(lines) + "\n"
    if refused:
        text += "\n## What does not fit, and why\n\n" + "\n".join(refused) + "\n"
    (folder / "README.md").write_text(text)
