"""Cycles of a compiled step by group, from two estimates. Nothing is timed: they are the compiler's figures.

`hlo`: the cycles that the compiler expects of each instruction (`estimated_cycles` in the program's text), times the
iterations of its loop. Accurate for matrix products (which run near the peak); pointwise work is overestimated 1.2 to 4
times, and 18 times if one lane of a tile is filled; work fused into a product is ignored; a physical reshape, a sort, a
gather and an overlapped copy have no figure at all.

`bundles`: the largest of the instruction words issued (`tests.bench.tpu_compiled.bundles`), bytes to and from HBM at
its bandwidth, and products at the peak; times the iterations of its loop. Covers expensive functions, changes of layout
and bad schedules, and has a figure for everything. Optimistic: there are no stalls, prefetching is free, bytes exclude
the padding of tiles, and the program's words around its instructions are left out.

Neither accounts for idle time, the host or other chips. A step should be between the two; ratios of two programs are
more informative than either.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping

from tests.bench.tpu_compiled.products import products
from tpu.compiler.hlo import Computation, Instruction, Module
from tpu.compiler.topology import Topology
from tpu.compiler.traffic import FREE, moved

LANES = 4 * 128 * 128  # multiply-accumulates of a v5e chip in a cycle
GROUPS = ("products", "relayouts", "optimizer", "attention", "rest")
LAYOUT = {"copy", "reshape", "transpose", "pad", "slice", "concatenate", "bitcast-convert"}
_PASSIVE = LAYOUT | {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "convert", "fusion"}
_SHAPING = re.compile(r"(?:dim_labels|window|dimensions|slice|padding|direction)=(?:\{[^}]*\}|\S+)")
_ESTIMATE = re.compile(r'"estimated_cycles":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Cost:
    """One instruction in one step.

    Attributes:
      times: number of runs.
      hlo, bundles: cycles of all its runs; `bundles` is None without the schedules.
      hbm: bytes of all its runs.
      scope: its origin in the source, as innermost names.
    """

    name: str
    group: str
    times: float
    hlo: int
    bundles: int | None
    hbm: int
    scope: str


def clock(place: Topology) -> float:
    """Cycles per second of a v5e chip, from its peak."""
    return place.peak / place.chips / (2 * LANES)


def costs(module: Module, issued: Mapping[str, int], tokens: tuple[int, ...], place: Topology) -> list[Cost]:
    """Every instruction of the control flow that takes time.

    Args:
      module: the program of one device.
      issued: bundles by instruction; empty without schedules.
      tokens: numbers of tokens that attention runs over.
      place: slice that it was compiled for.
    """
    alike = {_code(module, where, x): issued[x.name] for where, x, _ in _steps(module) if x.name in issued}

    def cost(where: Computation, x: Instruction, times: float) -> Cost:
        estimate = _ESTIMATE.search(x.attributes)
        hlo = round(times * int(estimate[1])) if estimate else 0
        hbm = moved(module, where, x)
        floor = _floor(sum(p.flops for p in products(module, where, x)), hbm, x, place)
        words = issued.get(x.name, alike.get(_code(module, where, x), 0))
        bundles = round(times * max(floor, words)) if issued else None
        scope = "/".join(_scope(x).split("/")[-3:])
        return Cost(x.name, group_of(module, where, x, tokens), times, hlo, bundles, round(times * hbm), scope)

    return [cost(*step) for step in _steps(module)]


def _steps(module: Module) -> Iterator[tuple[Computation, Instruction, int]]:
    """Every instruction that takes time, its position, and its number of runs."""
    for where, times in module.runs():
        yield from ((where, x, times) for x in where.instructions.values() if x.opcode not in FREE)


def _code(module: Module, where: Computation, x: Instruction) -> tuple[str, ...]:
    """The properties that determine the machine code of an instruction; the compiler makes the code of equal ones
    once.
    """
    parts = [x.opcode, x.shape, *(where.instructions[name].shape for name in x.operands)]
    if x.opcode == "fusion":
        for y in _inside(module, x):
            parts += [y.opcode, y.shape, re.sub(r"%[\w.\-]+", "", y.arguments), *_SHAPING.findall(y.attributes)]
    return tuple(parts)


def _floor(flops: int, hbm: int, x: Instruction, place: Topology) -> float:
    """Lower bound of the cycles of products and traffic; overlapped traffic takes none."""
    seconds = flops / place.peak
    if not x.opcode.endswith("-start"):
        seconds = max(seconds, hbm / place.chip.hbm_bandwidth)
    return seconds * clock(place)


def _scope(x: Instruction) -> str:
    found = re.search(r'op_name="([^"]*)"', x.attributes)
    return found[1] if found else ""


def group_of(module: Module, where: Computation, x: Instruction, tokens: tuple[int, ...]) -> str:
    """The group of an instruction, one of GROUPS.

    `relayouts` only move elements (not to and from the stacks of a scan); `optimizer` is everything outside the
    differentiated loss; `attention` has batched products or arrays with an axis of tokens twice; `products` are the
    other products, with the operations fused into them.
    """
    if x.opcode in LAYOUT or (x.opcode == "fusion" and _only_moves(module, x)):
        return "relayouts"
    scope = _scope(x)
    if scope and "jvp" not in scope:
        return "optimizer"
    found = list(products(module, where, x))
    shapes = [b.shape for b in x.results] + [b.shape for name in x.operands for b in where.instructions[name].results]
    if any(p.batched for p in found) or any(shape.count(n) > 1 for shape in shapes for n in tokens):
        return "attention"
    return "products" if found else "rest"


def _only_moves(module: Module, x: Instruction) -> bool:
    codes = {y.opcode for y in _inside(module, x)}
    return codes <= _PASSIVE and bool(codes & LAYOUT)


def _inside(module: Module, x: Instruction) -> Iterator[Instruction]:
    for y in module.computations[x.called["calls"]].instructions.values():
        yield y
        if y.opcode == "fusion":
            yield from _inside(module, y)
