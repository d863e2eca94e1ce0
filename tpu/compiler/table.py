"""Every config on every slice: rows in a file that only grows, and a page made from them.

A cell is identified by its config as it is now, its slice and the compiler's version. Finished cells are never compiled
again, so the table can be interrupted and continued.
"""

import dataclasses
import functools
import hashlib
import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.progress import Progress

from scaling.core.config import config_dict, find_config, from_config_dict
from scaling.core.errors import UserError
from scaling.core.files import GrowingFile, read_json_lines, write_whole
from scaling.training.config import TrainConfig
from tpu.compiler import topology as slices
from tpu.compiler.fit import smallest
from tpu.compiler.preflight_rows import COLUMNS, TERMS, PreflightRow, cells, chips_of, memory_of, preflight, scheduled
from tpu.compiler.step import compiler_options

TOPOLOGIES = ("v5e:8x8", "v5e:16x16", "v4:4x4x8", "v5p:4x4x8", "v6e:16x16")
SMALLEST = """
## The smallest slice

Of each generation, at the same global batch, with as many microbatches as it takes:

    python -m tpu.preflight --table=results/preflight --configs=vit_6b,vit_22b \\
        --smallest=v5e,v5p,v6e,v4

Slices on which parameters and optimizer alone do not fit are left out without being compiled. Where a row takes "nearly
all" of HBM, the sizes that the compiler reports add up to more than there is (`hbm_per_chip_bytes` above
`hbm_limit_bytes`): `fits` says that it took the program, packed tighter than they add up; read it as full, not as
measured.

"""
EARLIER = """
\\* Compiled from an earlier program of the step, which folded the tokens with the batch: more HBM traffic and another
peak of HBM; with remat `dots` it kept no product and repeated as much as `full` does. `make preflight` compiles these
anew. So are those of slices that have rings (v4, v5p and sides of 16) and were compiled without: of the largest models
they have all-reduces, and twice the bytes, where the compiler makes all-gathers on the machine that exists.
"""
HEADER = """# Does it fit?

Every config with its defaults, compiled by the TPU compiler for slices that were not there:

    make preflight

`rows.jsonl` has one row a cell, with collectives, traffic and times; an interrupted table goes on where it stopped.
HBM is per chip, of what the compiler leaves to a program, and the most it can take: near the limit it packs tighter.
The MFU bound is that of the roofline (`tpu/compiler/roofline.py`): no measurement, and no promise. Seconds of
compiling are wall time on {cores} cores that other work was using too; more than ten minutes: suspended in between.

"""


def shipped() -> list[str]:
    """Names of the configs that are shipped for pods."""
    return sorted(path.stem for path in find_config("vit_b.py").parent.glob("vit_*.py"))


def load(name: str) -> TrainConfig:
    """A config file with its defaults."""
    return from_config_dict(TrainConfig, runpy.run_path(str(find_config(name)))["get_config"]())


_OF = {"rows.jsonl": ("config", "topology"), "smallest.jsonl": ("config", "kind")}  # says what a row is of, by file


def _read(file: Path) -> list[PreflightRow]:
    def wrong(number: int, error: Exception) -> None:
        raise UserError(f"{file}, line {number}, is not a row of the table: {error}") from error

    def checked(row: Any) -> PreflightRow:
        if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in _OF[file.name]):
            raise TypeError(f"it does not say {' and '.join(_OF[file.name])}")
        return row

    return read_json_lines(file, checked, wrong) if file.exists() else []


def _newest(file: Path) -> dict[tuple[str, ...], PreflightRow]:
    """The finished cells of a file by what they are of, each as it was compiled last."""
    return {tuple(row[field] for field in _OF[file.name]): row for row in _read(file)}


class _Cells:
    """Finished cells by what they are of, in a file that only grows."""

    def __init__(self, file: Path):
        self.rows, self._fields = _newest(file), _OF[file.name]
        self._file = GrowingFile(file, _read(file))

    def need(self, *key: str, identity: str) -> bool:
        """Whether the cell is missing, or was compiled from another config or by another compiler."""
        return self.rows.get(key, {}).get("identity") != identity

    def add(self, row: PreflightRow) -> None:
        self._file.add([row])
        self.rows[tuple(row[field] for field in self._fields)] = row


def fill(folder: Path, names: list[str], topologies: list[str], mfu: float, price: float | None) -> list[PreflightRow]:
    """Compiles the cells that are missing, in the order given, and rewrites the page after each and at the end."""
    configs = {name: load(f"{name}.py") for name in names}  # a wrong name is found before the first is compiled
    done = _Cells(folder / "rows.jsonl")
    cells_of = [(name, where) for name in names for where in topologies]
    for name, where in _progress(cells_of):
        c, place = configs[name], slices.parse(where)
        identity = _identity(c, place.name, compiler_options(place), place.wrap)
        if done.need(name, where, identity=identity):
            done.add(preflight(name, c, place) | {"identity": identity, "program": PROGRAM})
            _write_page(folder, mfu, price)
    _write_page(folder, mfu, price)
    return [scheduled(done.rows[cell], mfu, price) for cell in cells_of]


def fill_smallest(
    folder: Path, names: list[str], kinds: list[str], mfu: float, price: float | None
) -> list[PreflightRow]:
    """Searches the smallest slice of each generation for each config, where that is not known already."""
    configs = {name: load(f"{name}.py") for name in names}
    done = _Cells(folder / "smallest.jsonl")
    cells_of = [(name, kind) for name in names for kind in kinds]
    for name, kind in _progress(cells_of):
        c = configs[name]
        identity = _identity(c, kind, compiler_options(slices.parse(f"{kind}:{slices.CHIPS[kind].shapes[0]}")))
        if done.need(name, kind, identity=identity):
            done.add(_smallest(name, c, kind) | {"kind": kind, "identity": identity, "program": PROGRAM})
            _write_page(folder, mfu, price)
    return [scheduled(done.rows[cell], mfu, price) for cell in cells_of]


def _progress(cells_of: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    with Progress() as progress:
        task = progress.add_task("compiling", total=len(cells_of))
        for name, where in cells_of:
            progress.update(task, description=f"{name} on {where}")
            yield name, where
            progress.advance(task)


def _smallest(name: str, c: TrainConfig, kind: str) -> PreflightRow:
    try:
        *refused, row = smallest(c, kind, functools.partial(preflight, name))
    except UserError as e:
        return {"config": name, "topology": kind, "fits": False, "why": f"{name}: {e}"}
    return row | {"refused": [x["why"] for x in refused]}


# What the step is compiled to, counted: 2, remat dots keeps the products; 3, tokens are not folded with the batch.
PROGRAM = 3


def _identity(c: TrainConfig, where: str, options: dict[str, Any], wrap: tuple[bool, ...] = ()) -> str:
    """Of what is compiled; the data and how often it is saved do not matter, nor does a field that has its default: one
    that is added later changes nothing. Nor do rings that a slice does not have.
    """
    same = TrainConfig()
    fields = _changed(
        config_dict(dataclasses.replace(c, data=same.data, checkpoint=same.checkpoint)), config_dict(same)
    )
    what = [fields, where, options, slices.compiler_version(), PROGRAM, *([wrap] if any(wrap) else [])]
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _changed(values: ConfigDict, defaults: ConfigDict) -> dict[str, Any]:
    return {
        name: _changed(value, defaults[name]) if isinstance(value, ConfigDict) else value
        for name, value in values.items()
        if value != defaults[name]
    }


def _write_page(folder: Path, mfu: float, price: float | None) -> None:
    found = _newest(folder / "rows.jsonl")
    rows = [scheduled(found[cell], mfu, price) for cell in sorted(found)]
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(_marked(row))} |" for row in rows]
    text = HEADER.format(cores=max((row.get("cores", 0) for row in rows), default=0)) + "\n".join(lines) + "\n"
    text += EARLIER if any(map(_earlier, rows)) else ""
    if refused := [f"- {row['why']}" for row in rows if not row["fits"]]:
        text += "\n## What does not fit, and why\n\n" + "\n".join(refused) + "\n"
    least = _newest(folder / "smallest.jsonl")
    if least:
        smallest_rows = [scheduled(least[cell], mfu, price) for cell in sorted(least)]
        said = [f"- {sentence(row)}{'*' if _earlier(row) else ''}" for row in smallest_rows]
        text += SMALLEST + "\n".join(said) + "\n"
    write_whole(folder / "README.md", text)


def _earlier(row: PreflightRow) -> bool:
    rings = any(slices.parse(row["topology"]).wrap) if ":" in row["topology"] else False
    return row.get("program", 1) < PROGRAM or (rings and not row.get("wrap"))


def _marked(row: PreflightRow) -> list[str]:
    first, *others = cells(row)
    return [f"{first}*" if _earlier(row) else first, *others]


def sentence(row: PreflightRow) -> str:
    """What the last row of `fit.smallest` says, with its schedule: the smallest slice may be the dearest."""
    if not row["fits"]:
        return row["why"]
    flag = "" if row["accumulate"] == 1 else f" with --config.accumulate={row['accumulate']}"
    return (
        f"{row['config']}: {row['topology']}, {chips_of(row)}{flag}, {memory_of(row)} of HBM, MFU at most "
        f"{row['mfu_bound']:.0%} ({TERMS[row['binding']]} binds), {row['schedule']['chip_hours']:,.0f} chip-hours at "
        f"{row['schedule']['mfu']:.0%}"
    )
