"""Configs on slices: rows in an append-only file, and a page made from them.

A cell is identified by its current config, its slice and the compiler's version. Finished cells are never compiled
again, so an interrupted table can be resumed.
"""

import dataclasses
import functools
import hashlib
import json
import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from rich.progress import Progress

from scaling.core.config import config_dict, find_config, from_config_dict
from scaling.core.errors import UserError
from scaling.core.files import GrowingFile, read_json_lines, write_whole
from scaling.training.config import TrainConfig
from tpu.compiler import topology as slices
from tpu.compiler.fit import POLICIES, Attempt, fastest, smallest
from tpu.compiler.page import WHICH, found_in, page
from tpu.compiler.preflight_rows import PreflightRow, misread, preflight, scheduled
from tpu.compiler.step import Config, compiler_options


class Cell(NamedTuple):
    """A config on a slice; remat: a policy in place of the config's own."""

    name: str
    topology: str
    remat: str = ""

    @property
    def config(self) -> TrainConfig:
        c = load(f"{self.name}.py")
        return dataclasses.replace(c, model=dataclasses.replace(c.model, remat=self.remat or c.model.remat))


PODS = ("v4:4x4x8", "v5p:4x4x8", "v5e:16x16", "v6e:16x16")
# What `make preflight` compiles. Left out are configs of which every row says what another's does: vit_b12x1 is vit_b;
# vit_ti and vit_s are smaller still; vit_g and vit_gg lie between vit_h and vit_6b, vit_h12x4 between its neighbours.
TABLE = (
    *(Cell(name, where) for name in ("vit_22b", "vit_6b") for where in (*PODS, "v5p:4x4x8_untwisted")),
    *(
        Cell(name, where)
        for name in ("vit_l12x4", "vit_so400m", "vit_g12x4", "vit_l", "vit_h", "vit_b")
        for where in PODS
    ),
    *(Cell("vit_l", "v5e:8x8", policy) for policy in POLICIES),
)


def chosen(names: Sequence[str], topologies: Sequence[str]) -> list[Cell]:
    """Cells of these configs on these slices. By default those of TABLE; for configs that it lacks, PODS."""
    names = names or list(dict.fromkeys(cell.name for cell in TABLE))
    if topologies:
        return [Cell(name, where) for name in names for where in topologies]
    kept = {name: [cell for cell in TABLE if cell.name == name] for name in names}
    return [cell for name in names for cell in kept[name] or [Cell(name, where) for where in PODS]]


def load(name: str) -> TrainConfig:
    """A config file with its defaults."""
    return from_config_dict(TrainConfig, runpy.run_path(str(find_config(name)))["get_config"]())


# What a row is of, by file.
_OF = {
    "rows.jsonl": ("config", "topology", "remat"),
    "smallest.jsonl": ("config", "kind"),
    "variants.jsonl": ("identity",),
    "fastest.jsonl": ("config", "topology"),
}


def _read(file: Path) -> list[PreflightRow]:
    def wrong(number: int, error: Exception) -> None:
        raise UserError(f"{file}, line {number}, is not a row of the table: {error}") from error

    def checked(row: Any) -> PreflightRow:
        if not isinstance(row, dict) or not all(isinstance(row.get(field), str) for field in _OF[file.name]):
            raise TypeError(f"it does not say {' and '.join(_OF[file.name])}")
        return row

    return read_json_lines(file, checked, wrong) if file.exists() else []


def _newest(file: Path) -> dict[tuple[str, ...], PreflightRow]:
    """The finished cells of a file by their identifying fields; for each the newest compilation."""
    return {tuple(row[field] for field in _OF[file.name]): row for row in _read(file)}


class _Cells:
    """Finished cells by their identifying fields, in an append-only file."""

    def __init__(self, file: Path):
        self.rows, self._fields = _newest(file), _OF[file.name]
        self._file = GrowingFile(file, _read(file))

    def need(self, *key: str, identity: str) -> bool:
        """Whether the cell is missing or misread, or was compiled from another config or by another compiler."""
        row = self.rows.get(key)
        return row is None or row.get("identity") != identity or any(map(misread, (row, *found_in(row))))

    def add(self, row: PreflightRow) -> None:
        self._file.add([row])
        self.rows[tuple(row[field] for field in self._fields)] = row


def fill(folder: Path, wanted: Sequence[Cell], mfu: float, price: float | None) -> list[PreflightRow]:
    """Compiles the cells that are missing, in the order given, and rewrites the page after each and at the end."""
    configs = {cell: cell.config for cell in wanted}  # a wrong name is found before anything is compiled
    done = _Cells(folder / "rows.jsonl")
    for cell in _progress(wanted):
        c, place = configs[cell], slices.parse(cell.topology)
        identity = _identity_on(c, place)
        if done.need(cell.name, place.name, c.model.remat, identity=identity):
            done.add(preflight(cell.name, c, place) | {"identity": identity, "program": PROGRAM})
            _write_page(folder, mfu, price)
    _write_page(folder, mfu, price)
    found = [done.rows[cell.name, cell.topology, configs[cell].model.remat] for cell in wanted]
    return [scheduled(row, mfu, price) for row in found]


def fill_smallest(
    folder: Path, names: Sequence[str], kinds: Sequence[str], mfu: float, price: float | None
) -> list[PreflightRow]:
    """Finds the smallest slice of each generation for each config, unless already known."""
    configs = {name: load(f"{name}.py") for name in names}
    done = _Cells(folder / "smallest.jsonl")
    cells_of = [Cell(name, kind) for name in names for kind in kinds]
    for name, kind, _ in _progress(cells_of):
        c = configs[name]
        identity = _identity(c, kind, compiler_options(slices.parse(f"{kind}:{slices.CHIPS[kind].shapes[0]}")))
        if done.need(name, kind, identity=identity):
            done.add(_smallest(name, c, kind) | {"kind": kind, "identity": identity, "program": PROGRAM})
            _write_page(folder, mfu, price)
    return [scheduled(done.rows[cell[:2]], mfu, price) for cell in cells_of]


def fill_fastest(
    folder: Path, names: Sequence[str], places: Sequence[str], mfu: float, price: float | None
) -> list[PreflightRow]:
    """Finds the fastest variant of each config on each slice, with its own mesh and with any, unless already known.

    Every compiled variant is kept: neither an interrupted search nor one that shares variants with another compiles
    them again.
    """
    configs = {name: load(f"{name}.py") for name in names}
    rows = _read(folder / "rows.jsonl")
    known = {row["identity"]: row for row in rows if row.get("program") == PROGRAM and not misread(row)}
    variants, done = _Cells(folder / "variants.jsonl"), _Cells(folder / "fastest.jsonl")
    cells_of = [Cell(name, where) for name in names for where in places]
    for name, where, _ in _progress(cells_of):
        c, place = configs[name], slices.parse(where)

        def compiled(c: Config, place: slices.Topology, name: str = name) -> PreflightRow:
            assert isinstance(c, TrainConfig)  # as all of a table
            identity = _identity_on(c, place)
            if identity not in known and variants.need(identity, identity=identity):
                variants.add(preflight(name, c, place) | {"identity": identity, "program": PROGRAM})
            return (known.get(identity) or variants.rows[identity,]) | {"config": name}

        identity = _identity_on(c, place)
        if done.need(name, where, identity=identity):
            row: PreflightRow = {"config": name, "topology": where, "identity": identity, "program": PROGRAM}
            done.add(row | _searched(c, place, compiled))
            _write_page(folder, mfu, price)
    found = [done.rows[cell[:2]] for cell in cells_of]
    return [scheduled(variant, mfu, price) for row in found for variant in found_in(row)]


def _searched(c: TrainConfig, place: slices.Topology, compiled: Attempt) -> PreflightRow:
    """The fastest variants, and the identities of all that the search compiled; or why nothing fits."""
    found: PreflightRow = {}
    try:
        for which, other_meshes in zip(WHICH, (False, True), strict=True):
            best, tried = fastest(c, place, compiled, other_meshes)
            found |= {which: compiled(best, place), "compiled": [row["identity"] for row in tried]}
    except UserError as e:
        return {"why": str(e)}
    return found


def _progress(cells_of: Sequence[Cell]) -> Iterator[Cell]:
    with Progress() as progress:
        task = progress.add_task("compiling", total=len(cells_of))
        for cell in cells_of:
            progress.update(task, description=f"{cell.name} on {cell.topology}")
            yield cell
            progress.advance(task)


def _smallest(name: str, c: TrainConfig, kind: str) -> PreflightRow:
    try:
        *refused, row = smallest(c, kind, functools.partial(preflight, name))
    except UserError as e:
        return {"config": name, "topology": kind, "fits": False, "why": f"{name}: {e}"}
    return row | {"refused": [x["why"] for x in refused]}


# Version of the compiled program: 2, remat dots saves the products; 3, tokens are not folded with the batch; 4, the sum
# of the softmax is saved.
PROGRAM = 4


def _identity(c: TrainConfig, where: str, options: dict[str, Any], wrap: tuple[bool, ...] = ()) -> str:
    """Identity of a compiled program. Data, checkpointing and fields at their defaults are excluded, so that fields
    added later change nothing; so are rings that a slice does not have.
    """
    same = TrainConfig()
    fields = _changed(
        config_dict(dataclasses.replace(c, data=same.data, checkpoint=same.checkpoint)), config_dict(same)
    )
    what = [fields, where, options, slices.compiler_version(), PROGRAM, *([wrap] if any(wrap) else [])]
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _identity_on(c: TrainConfig, place: slices.Topology) -> str:
    return _identity(c, place.name, compiler_options(place), place.wrap)


def _changed(values: ConfigDict, defaults: ConfigDict) -> dict[str, Any]:
    return {
        name: _changed(value, defaults[name]) if isinstance(value, ConfigDict) else value
        for name, value in values.items()
        if value != defaults[name]
    }


def _write_page(folder: Path, mfu: float, price: float | None) -> None:
    rows, least, searched = (
        [found[cell] for cell in sorted(found)]
        for found in (_newest(folder / name) for name in ("rows.jsonl", "smallest.jsonl", "fastest.jsonl"))
    )
    timed, of_slices = ([scheduled(row, mfu, price) for row in each] for each in (rows, least))
    of_searches = [
        row | {which: scheduled(row[which], mfu, price) for which in WHICH if which in row} for row in searched
    ]
    text = page(timed, of_slices, of_searches, PROGRAM)
    notes = folder / "notes.md"
    text += "\n" + notes.read_text(encoding="utf-8") if notes.exists() else ""
    write_whole(folder / "README.md", text)
