"""Communication between chips in a compiled step: collectives by kind, from its HLO.

The TPU compiler hides collectives in three ways, all recognised here: an asynchronous one is split into `-start` and
`-done`; one that overlaps with other work is repeated in every fusion it overlaps with, under one `chain_id`; and a
reduce-scatter is an all-reduce with slices inside a fusion called `all-reduce-scatter`.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from tpu.compiler.hlo import Computation, Instruction, Module

READING = 2  # version of what is read here; until 2, gathers over a part of the devices were taken for ones over all
KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of the program.

    Attributes:
      kind: one of KINDS.
      times: number of runs in one step, on average.
      bytes: bytes that each chip sends, and receives, in one run: for an array of V bytes over a group of n chips
        V (n - 1) / n for all-gather, reduce-scatter and all-to-all, twice that for all-reduce, V for
        collective-permute. No algorithm sends less, and a ring sends exactly that.
      group: devices (positions in the mesh) of one of the groups.
      overlaps: whether it overlaps with other work.
    """

    kind: str
    times: float
    bytes: int
    group: tuple[int, ...]
    overlaps: bool


def collectives(module: Module, devices: int) -> list[Collective]:
    """Every collective of a step, each once.

    Args:
      module: HLO module of the compiled step.
      devices: number of devices it is compiled for.
    """
    found: dict[tuple[str, str], Collective] = {}
    for computation, times in module.runs():
        for where, x in _inside(module, computation):
            kind = x.opcode.removesuffix("-done")
            if kind not in KINDS:
                continue
            start = where.instructions[x.operands[0]] if x.opcode.endswith("-done") else x
            if kind == "all-reduce" and where.name.startswith("all-reduce-scatter"):
                kind = "reduce-scatter"
            chain = re.search(r'chain_id="(\d+)"', start.attributes)
            overlaps = bool(chain) or x.opcode.endswith("-done") or "async_collective_name=" in start.attributes
            group = first_group(start.attributes, devices)
            sent = _sent(kind, x, group)
            key = (computation.name, f"chain {chain[1]}" if chain else f"{where.name} {x.name}")
            found[key] = Collective(kind, times, sent, group, overlaps)
    return list(found.values())


def _inside(module: Module, computation: Computation) -> Iterator[tuple[Computation, Instruction]]:
    """The instructions of a computation and of those that its fusions and asynchronous starts call."""
    for x in computation.instructions.values():
        yield computation, x
        if "calls" in x.called and not x.opcode.endswith(("-done", "-update")):
            yield from _inside(module, module.computations[x.called["calls"]])


def _sent(kind: str, x: Instruction, group: tuple[int, ...]) -> int:
    if kind == "collective-permute":
        return x.size
    whole = x.size * len(group) if x.opcode.startswith("reduce-scatter") else x.size
    passes = 2 if kind == "all-reduce" else 1
    return passes * whole * (len(group) - 1) // len(group)


def first_group(attributes: str, devices: int) -> tuple[int, ...]:
    """The first of the groups in which a collective runs, in any of HLO's notations.

    `{{0,1},{2,3}}`, `[2,4]<=[8]`, `[2,4]<=[4,2]T(1,0)`, `mesh['a'=2,'b'=4] {'b'}`, and the last with its devices in
    another order, `mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}`; all devices if none is given.

    Raises:
      ValueError: the groups are written in another way. Read as all devices, they would have the bandwidth of all.
    """
    pairs = re.search(r"source_target_pairs=\{\{([\d,]+)\}", attributes)
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attributes)
    if pairs or listed:
        return tuple(_numbers((listed or pairs)[1]))  # type: ignore[index]
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", attributes)
    if iota:
        return tuple(_order(iota[2], devices).reshape(_numbers(iota[1]))[0].tolist())
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^{]*)\))? \{([^}]*)\}", attributes)
    if mesh:
        return _mesh_group(mesh[1], _order(mesh[2] or f"[{devices}]", devices), mesh[3])
    if written := re.search(r"replica_groups=(?!\{\})\S{1,60}", attributes):
        raise ValueError(f"{written[0]}: is in no known notation of groups; teach it to {__name__}")
    return tuple(range(devices))


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def _order(text: str, devices: int) -> np.ndarray:
    """Devices as listed: `[4,2]T(1,0)`, all of them in a grid whose axes are then permuted, or `0,2,1,3`."""
    grid = re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    if grid is None:
        return np.array(_numbers(text))
    sizes = _numbers(grid[1])
    return np.arange(devices).reshape(sizes).transpose(_numbers(grid[2] or "") or range(len(sizes))).ravel()


def _mesh_group(mesh: str, order: np.ndarray, over: str) -> tuple[int, ...]:
    """First group of `mesh['a'=2,'b'=8] {'b':(2)4}`: over the part of size 4 of b that follows a part of size 2."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh)}
    ids = order.reshape(list(sizes.values()))
    parts = {name: (int(before or 1), int(size or sizes[name])) for name, before, size in _AXES.findall(over)}
    index = tuple(_part(sizes[name], *parts[name]) if name in parts else np.zeros(1, np.int64) for name in sizes)
    return tuple(ids[np.ix_(*index)].ravel().tolist())


_AXES = re.compile(r"'(\w+)'(?::\((\d+)\)(\d+))?")


def _part(whole: int, before: int, size: int) -> np.ndarray:
    """Coordinates of one axis that a sub-axis covers: `size` of them, with the spacing given by the sizes after it."""
    return np.arange(size) * (whole // (before * size))


def totals(found: list[Collective]) -> dict[str, dict[str, int]]:
    """Kind -> count and bytes per chip and step, runs of loops included; kinds that do not occur are left out."""
    result: dict[str, dict[str, float]] = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
    for c in found:
        result[c.kind]["count"] += c.times
        result[c.kind]["bytes"] += c.times * c.bytes
    return {kind: {name: round(x) for name, x in result[kind].items()} for kind in KINDS if kind in result}
