"""Cost of a step of slimmable training relative to one of the wrapped objective, and to the operations counted.

    JAX_PLATFORMS=cpu python -m tests.bench.slimmable_step [--config=slimmable_ti8.py] [--batch=32] [--steps=6]

For the same encoder in float32 on the CPU: seconds to compile each step, and wall and processor seconds of a step;
sides take turns. The operations are those of the widths drawn in the timed steps, not of an average step. Targets: time
over operations below 1.3, compilation below 2 times.
"""

import argparse
import dataclasses
import os
import time

import jax
import numpy as np

from scaling.compute.counting import Narrower, training_flops
from scaling.parallel.mesh import batch_sharding, make_mesh
from scaling.training.config import TrainConfig, step_config
from scaling.training.step import TrainStep
from tpu.compiler.table import load


class Side:
    """A compiled training step, and the times of its steps."""

    def __init__(self, c: TrainConfig):
        self._c, mesh = c, make_mesh(c.mesh, jax.devices()[:1])
        self._step = TrainStep(step_config(c, "cpu"), mesh)
        self._state, draw = self._step.init(), np.random.default_rng(0)
        shapes = self._step.objective.abstract_batch(c.batch_size)
        batch = {name: draw.integers(0, 256, x.shape, dtype=np.uint8) for name, x in shapes.items()}
        self._batch = jax.device_put(batch, batch_sharding(mesh))
        began = time.perf_counter(), time.process_time()
        program = self._step.step.lower(self._state, self._batch).compile()
        self.compiling = time.perf_counter() - began[0], time.process_time() - began[1]
        self._program = lambda state: program(state, self._batch, *self._step.step.scalars)
        self.seconds: list[tuple[float, float, int]] = []  # of the wall, of the processor, and operations

    def step(self) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        self._state, metrics = self._program(self._state)
        jax.block_until_ready(self._state)
        took = time.perf_counter() - wall, time.process_time() - processor
        self.seconds.append((*took, self._operations({name: float(x) for name, x in metrics.items()})))

    def _operations(self, metrics: dict[str, float]) -> int:
        """Operations of one step with the widths that it logged."""
        drawn = [round(x, 6) for name, x in metrics.items() if name.startswith("width_")]
        tokens = self._c.objective.tokens(self._c.model)
        if drawn:
            widths = [round(cut.width, 6) for cut in self._c.objective.cuts(self._c.model)]
            often = [float(i == 0) + drawn.count(width) for i, width in enumerate(widths)]

            def ran(narrower: tuple[Narrower, ...]) -> tuple[Narrower, ...]:
                return tuple(dataclasses.replace(n, times=x) for n, x in zip(narrower, often, strict=True))

            forward = tokens.forward_only and dataclasses.replace(
                tokens.forward_only, narrower=ran(tokens.forward_only.narrower)
            )
            tokens = dataclasses.replace(tokens, narrower=ran(tokens.narrower), forward_only=forward)
        return self._c.batch_size * training_flops(self._step.names, self._step.abstract.params, tokens)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--config", default="slimmable_ti8.py")
    flags.add_argument("--batch", type=int, default=32)
    flags.add_argument("--steps", type=int, default=6)
    options = flags.parse_args()
    c = load(options.config)
    bands = c.model.bands
    data = dataclasses.replace(c.data, mean=(128.0,) * bands, std=(64.0,) * bands)
    c = dataclasses.replace(c, batch_size=options.batch, data=data)
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}", flush=True)
    sides = {"plain": Side(dataclasses.replace(c, objective=c.objective.wraps)), "slimmable": Side(c)}
    for i in range(options.steps + 1):
        for side in sides.values():
            side.step()
            if i == 0:
                side.seconds.clear()  # the first step touches its memory for the first time
    totals = {
        name: np.array([*side.compiling, *np.sum(side.seconds, axis=0) / options.steps]) for name, side in sides.items()
    }
    print(f"{'':10}{'compiling':>20}{'a step':>20}\n{'':10}" + f"{'wall s':>10}{'cpu s':>10}" * 2 + f"{'GFLOP':>10}")
    for name, figures in totals.items():
        print(f"{name:10}" + "".join(f"{x:10.3f}" for x in (*figures[:-1], figures[-1] / 1e9)))
    ratios = totals["slimmable"] / totals["plain"]
    print(f"{'ratio':10}" + "".join(f"{x:10.3f}" for x in ratios))
    print("time over operations: wall {:.2f}, processor {:.2f}".format(*ratios[2:4] / ratios[4]))


if __name__ == "__main__":
    main()
