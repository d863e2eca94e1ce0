"""Where the compilation of a slimmable step goes: whole steps by number of widths, and the parts of one width.

    taskset -c 0 env JAX_PLATFORMS=cpu python -m tests.bench.slimmable_compile [--config=slimmable_ti8.py] [--batch=16]

Processor seconds to trace and lower, and to compile, on the CPU. Each part is compiled by itself, so that what XLA
shares within a step counts in each.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.objectives.base import Inputs
from scaling.parallel.mesh import make_mesh
from scaling.training.config import TrainConfig, step_config
from scaling.training.step import TrainStep
from tpu.compiler.table import load

NUMBERS = (2, 4, 8)  # of widths, the full one among them


def compiled(function: Any, *shapes: Any) -> tuple[float, float]:
    """Processor seconds to trace and lower a jitted function, and to compile it."""
    jax.clear_caches()
    began = time.process_time()
    lowered = function.lower(*shapes)
    then = time.process_time()
    lowered.compile()
    return then - began, time.process_time() - then


def steps(c: TrainConfig) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """The wrapped step, and slimmable ones of several numbers of widths."""
    grids = {n: dataclasses.replace(c.objective, number=n, random=3 if n > 2 else 0) for n in NUMBERS}
    for name, objective in {"plain": c.objective.wraps, **{f"{n} widths": o for n, o in grids.items()}}.items():
        step = TrainStep(step_config(dataclasses.replace(c, objective=objective), "cpu"), make_mesh(c.mesh))
        batch = {k: jnp.zeros(x.shape, x.dtype) for k, x in step.objective.abstract_batch(c.batch_size).items()}
        yield f"step, {name}", step.step, (step.init(), batch)


def parts(c: TrainConfig) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """The parts of the width in the middle of the grid."""
    of = Inputs(c.data.mean, c.data.std, steps=c.steps)
    whole, sandwich = c.objective.wraps.make(c.model, of), c.objective.make(c.model, of)
    cut = c.objective.cuts(c.model)[c.objective.number // 2 - 1]
    network = cut.objective.make(cut.model, of)
    params, small = (jax.eval_shape(o.init, 0) for o in (whole, network))
    extra = jax.eval_shape(sandwich.init_extra, params)
    batch = sandwich.abstract_batch(c.batch_size)
    inputs = jax.eval_shape(whole.inputs, 0, jax.ShapeDtypeStruct((), jnp.int32), batch)
    _, given = jax.eval_shape(whole.shared, params, extra, inputs)

    def loss(p: Any, x: Any) -> jax.Array:
        return network.told(p, x)[0]["loss"].mean()

    def tokens(p: Any, x: Any) -> jax.Array:
        return network.told(p, x)[1]["tokens"].sum()

    yield "one width, forward", jax.jit(loss), (small, given)
    yield "one width, forward and backward", jax.jit(jax.grad(loss)), (small, given)
    if c.objective.wraps.name == "mae":
        yield "its encoder alone, forward and backward", jax.jit(jax.grad(tokens)), (small, given)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--config", default="slimmable_ti8.py")
    flags.add_argument("--batch", type=int, default=16)
    options = flags.parse_args()
    c = load(options.config)
    data = dataclasses.replace(c.data, mean=(128.0,) * c.model.bands, std=(64.0,) * c.model.bands)
    c = dataclasses.replace(c, batch_size=options.batch, data=data)
    print(f"{'processor s':40}{'lowering':>10}{'compiling':>10}{'sum':>8}")
    for name, function, shapes in (*parts(c), *steps(c)):
        found = np.array(compiled(function, *shapes))
        print(f"{name:40}{found[0]:10.1f}{found[1]:10.1f}{found.sum():8.1f}", flush=True)


if __name__ == "__main__":
    main()
