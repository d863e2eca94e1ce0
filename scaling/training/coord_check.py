"""The coordinate check: do the numbers inside a model stay the same size when it is made wider?

Models of several widths are trained for a few steps on the same images, and the mean absolute value of every part's
output is recorded. If the parametrization is right, it does not depend on the width, at the start and after any number
of steps (Yang et al., 2203.03466, appendix D.1).
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from scaling.core.errors import UserError
from scaling.objectives import Objective
from scaling.training.config import TrainConfig
from scaling.training.open_run import OpenRun, open_data, open_mesh
from scaling.training.prefetch import training_feed

_SEEN = 64  # images on which the coordinates are measured


def coordinates(configs: Iterable[TrainConfig], steps: int, report: Callable[..., None]) -> None:
    """Trains every configuration for some steps at its peak learning rate, and reports the sizes of its coordinates.

    Args:
      configs: runs to compare; all use the data of the first.
      steps: number of steps.
      report: called as (config, step, {part: size}) before the first step and after each; a part of a stack is
        `mlp/0`, with the index of the layer.
    """
    configs = list(configs)
    opened, source, held_out = open_data(configs[0])
    for c in configs:
        # constant: after a few steps of warm-up all parametrizations would look alike
        optimizer = dataclasses.replace(c.optimizer, warmup=0, schedule="cooldown", cooldown=0.0)
        c = dataclasses.replace(c, steps=10 * steps, optimizer=optimizer, data=opened.data).resolved()
        train_step = OpenRun(c, open_mesh(c), source, held_out).train_step
        state = train_step.init()
        with contextlib.closing(training_feed(source, c, train_step.mesh, train_step.arrays, seed=0)) as feed:
            for step in range(steps + 1):
                host, batch = next(feed)
                if step == 0:
                    seen = {name: host[name][:_SEEN] for name in train_step.arrays}
                report(c, step, _sizes(train_step.objective, state.params, seen))
                if step < steps:
                    state, _ = train_step.step(state, batch)


def _sizes(objective: Objective, params: object, batch: Any) -> dict[str, float]:
    if objective.coordinates is None:
        raise UserError(f"--config: {type(objective).__name__} does not support the coordinate check")
    found = jax.device_get(objective.coordinates(params, batch))
    sizes: dict[str, float] = {}
    for part, size in found.items():
        sizes |= {f"{part}/{i}": float(x) for i, x in enumerate(size)} if size.ndim else {part: float(size)}
    return sizes


def spread(sizes: Sequence[float]) -> float:
    """Largest over smallest size: 1 if the width does not matter."""
    return max(sizes) / min(sizes)
