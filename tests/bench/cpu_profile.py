"""Time of a pretraining step on a CPU by operation, from JAX's profiler, and the share of the machine's peak in
products.

    python -m tests.bench.cpu_profile [--config=quickstart.py] [--batch_size=128] [--steps=5] [--top=0]

The rate of the machine is that of one large float32 product, the best of several, before and after. The step is that of
`scaling.train` on images of noise. XLA runs independent operations at the same time: each moment is divided among those
under way, so that the groups add up to the time of the steps. Operations that XLA has fused with a product count as the
product. Processor seconds are given too, for a machine that is shared.
"""

import argparse
import collections
import dataclasses
import math
import os
import re
import runpy
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scaling.core.config import find_config, from_config_dict
from scaling.parallel.mesh import batch_sharding, make_mesh
from scaling.training.config import TrainConfig, step_config
from scaling.training.step import TrainStep
from tpu.compiler import hlo

SIDE = 2048  # of the product that measures the machine
KINDS = {"erf": "GELU", "exp": "softmax", "rsqrt": "norms"}  # operation that tells -> group
MOVES = {"copy", "transpose", "concatenate", "slice", "pad", "reshape", "dynamic-slice", "dynamic-update-slice"}
PASSIVE = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element", "broadcast"}
CONTAINERS = {"while", "call", "conditional"}


@dataclasses.dataclass(frozen=True)
class Operation:
    """An instruction of the control flow. flops: of its products, in one run; scope: where it comes from."""

    group: str
    flops: int
    scope: str


Span = tuple[int, int, str]


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of a step: by clock and of processors (medians), and by clock in the trace; the machine's rates."""

    steps: int
    wall: float
    cpu: float
    traced: float
    rate: float
    cpu_rate: float


def matrix_rates(repeats: int = 9) -> tuple[float, float]:
    """Operations a second, and a processor second, of a product [SIDE, SIDE] x [SIDE, SIDE] in float32: the best."""
    x = jax.random.normal(jax.random.key(0), (SIDE, SIDE))
    product = jax.jit(lambda x, y: x @ y).lower(x, x).compile()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(product(x, x))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return 2 * SIDE**3 / min(walls), 2 * SIDE**3 / min(cpus)


def operations(module: hlo.Module) -> dict[str, Operation]:
    """Operations that take time, by name."""
    return {
        x.name: _operation(module, where, x)
        for where, _ in module.runs()
        for x in where.instructions.values()
        if x.opcode not in PASSIVE | CONTAINERS
    }


def _operation(module: hlo.Module, where: hlo.Computation, x: hlo.Instruction) -> Operation:
    inside = list(_inside(module, where, x))
    flops = sum(_flops(at, y) for at, y in inside)
    scopes = [scope for _, y in inside if (scope := _scope(y))]
    scope = _scope(x) or next(iter(scopes), "")
    if flops:
        batched = any("lhs_batch_dims" in y.attributes for _, y in inside)
        return Operation("products of attention" if batched else "products", flops, scope)
    if {y.opcode for _, y in inside} <= MOVES | PASSIVE | {"fusion"}:
        return Operation("relayouts", 0, scope)
    if scopes and not any("jvp" in scope for scope in scopes):
        return Operation("optimizer, masks", 0, scope)
    told = [group for end, group in KINDS.items() if any(scope.endswith(f"/{end}") for scope in scopes)]
    return Operation(told[0] if told else "other elementwise", 0, scope)


def _inside(
    module: hlo.Module, where: hlo.Computation, x: hlo.Instruction
) -> Iterator[tuple[hlo.Computation, hlo.Instruction]]:
    yield where, x
    if x.opcode == "fusion":
        called = module.computations[x.called["calls"]]
        for y in called.instructions.values():
            yield from _inside(module, called, y)


def _scope(x: hlo.Instruction) -> str:
    found = re.search(r'op_name="([^"]*)"', x.attributes)
    return found[1] if found else ""


def _flops(where: hlo.Computation, x: hlo.Instruction) -> int:
    """Two for each multiply-accumulate of a `dot`."""
    if x.opcode != "dot":
        return 0
    dims = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", x.attributes)
    assert dims is not None
    left = where.instructions[x.operands[0]].results[0].shape
    return 2 * math.prod(x.results[0].shape) * math.prod(left[int(n)] for n in dims[1].split(",") if n)


def spans(folder: Path) -> list[Span]:
    """Begin and end in nanoseconds of the executed operations, with their names, from a trace.

    An operation that is handed to other threads has a separate event for its end, with the same number.
    """
    (file,) = folder.rglob("*.xplane.pb")
    begun: dict[int, Span] = {}
    ended: dict[int, int] = {}
    for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
        for event in (event for line in plane.lines for event in line.events):
            stats: dict[str, Any] = dict(event.stats)
            if "hlo_op" in stats and "_p" in stats:
                begun[stats["_p"]] = (event.start_ns, event.start_ns + event.duration_ns, stats["hlo_op"])
            elif event.name.startswith("end: ") and "_c" in stats:
                ended[stats["_c"]] = event.start_ns
    return [(a, max(b, ended.get(number, b)), name) for number, (a, b, name) in begun.items()]


def divided(found: list[Span]) -> dict[str, float]:
    """Seconds by name; a moment with several under way is divided among them."""
    edges = sorted((span[not begins], begins, i) for i, span in enumerate(found) for begins in (True, False))
    seconds: dict[str, float] = collections.defaultdict(float)
    under_way: set[int] = set()
    before = 0
    for at, begins, i in edges:
        for j in under_way:
            seconds[found[j][2]] += (at - before) / len(under_way) / 1e9
        before = at
        (under_way.add if begins else under_way.discard)(i)
    return seconds


def run(config: str, batch_size: int | None, steps: int, top: int) -> None:
    c = from_config_dict(TrainConfig, runpy.run_path(str(find_config(config)))["get_config"]()).resolved()
    c = dataclasses.replace(c, batch_size=batch_size or c.batch_size)
    bands = c.model.bands
    c = dataclasses.replace(c, data=dataclasses.replace(c.data, mean=(0.0,) * bands, std=(1.0,) * bands))
    train_step = TrainStep(step_config(c, "cpu"), make_mesh(c.mesh, jax.devices()[:1]))
    draw = np.random.default_rng(0)
    shapes = train_step.objective.abstract_batch(c.batch_size)
    batch = {name: draw.integers(0, 256, x.shape).astype(x.dtype) for name, x in shapes.items()}
    batch = jax.device_put(batch, batch_sharding(train_step.mesh))
    state = train_step.init()
    known = operations(hlo.parse(train_step.step.lower(state, batch).compile().as_text()))

    def several(state: Any) -> tuple[Any, float, float]:
        walls, cpus = [], []
        for _ in range(steps):
            began, cpu = time.perf_counter(), time.process_time()
            state, metrics = train_step.step(state, batch)
            jax.block_until_ready((state, metrics))
            walls.append(time.perf_counter() - began)
            cpus.append(time.process_time() - cpu)
        return state, statistics.median(walls), statistics.median(cpus)

    rates = matrix_rates()
    state, _, _ = several(state)
    state, wall, cpu = several(state)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            began = time.perf_counter()
            state, _, _ = several(state)
            traced = (time.perf_counter() - began) / steps
        found = [span for span in spans(Path(folder)) if span[2] in known]
    _report(c, known, found, Times(steps, wall, cpu, traced, *map(max, rates, matrix_rates())), top)


def _report(c: TrainConfig, known: dict[str, Operation], found: list[Span], t: Times, top: int) -> None:
    """Prints a row a group: milliseconds of a step, share, operations of its products and their rate."""
    seconds, runs = divided(found), collections.Counter(name for _, _, name in found)
    groups: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for name, s in seconds.items():
        groups[known[name].group][0] += s / t.steps
        groups[known[name].group][1] += known[name].flops * runs[name] / t.steps
    flops = sum(f for _, f in groups.values())
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(
        f"{cores} cores, load {load:.1f}, jax {jax.__version__}; a product of {SIDE}: {t.rate / 1e9:.0f} GFLOP/s, "
        f"{t.cpu_rate / 1e9:.0f} a processor second"
    )
    print(
        f"{c.batch_size} images a step: {t.wall:.3f} s by clock, {t.cpu:.3f} of processors, traced {t.traced:.3f}; "
        f"{flops / 1e9:.2f} GFLOP of products, over the whole step {flops / t.wall / t.rate:.0%} of that rate, "
        f"{flops / t.cpu / t.cpu_rate:.0%} by processor seconds"
    )
    print(f"{'':24}{'ms':>9}{'share':>8}{'GFLOP':>9}{'GFLOP/s':>9}{'of rate':>9}")
    groups["idle"][0] = t.traced - sum(s for s, _ in groups.values())
    for group, (s, f) in sorted(groups.items(), key=lambda item: -item[1][0]):
        of = f"{f / 1e9:9.2f}{f / s / 1e9:9.0f}{f / s / t.rate:9.0%}" if f else ""
        print(f"{group:24}{s * 1e3:9.1f}{s / t.traced:8.1%}{of}")
    for name in sorted(seconds, key=lambda name: -seconds[name])[:top]:
        x, s, n = known[name], seconds[name] / t.steps, runs[name] // t.steps
        of = f"{x.flops * n / s / t.rate:6.0%}" if x.flops else ""
        scope = "/".join(x.scope.split("/")[-3:])
        print(f"{s * 1e3:8.2f} ms x {n:<4}{x.group:22}{of:6} {name:40} {scope}")


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--config", default="quickstart.py")
    flags.add_argument("--batch_size", type=int, help="default: the config's")
    flags.add_argument("--steps", type=int, default=5)
    flags.add_argument("--top", type=int, default=0, help="also the operations that take longest")
    options = flags.parse_args()
    run(options.config, options.batch_size, options.steps, options.top)


if __name__ == "__main__":
    main()
