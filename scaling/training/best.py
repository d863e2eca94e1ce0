"""The best checkpoint of a run by a held-out metric, kept beside its newest ones.

It lies in `WORKDIR/best`, which every command reads as it reads a working directory: `--checkpoint=WORKDIR/best`.
"""

import json
import logging
import math
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import BEST
from scaling.parallel import hosts
from scaling.training.checkpoints import CheckpointConfig, Checkpoints
from scaling.training.state import AVERAGE, State
from scaling.training.step import TrainStep

log = logging.getLogger(__name__)

_VALUES = "values.json"  # in it: the metric, and its value of every step that has been the best


class Best:
    """Keeps the state of the step with the best value of a metric.

    Args:
      workdir: of the run.
      metric: a row's name of it; the smallest is best of a loss, the largest of anything else.

    Attributes:
      step: that is kept already; None for none.
    """

    def __init__(self, workdir: epath.Path, metric: str):
        self._folder, self._metric = workdir / BEST, metric
        self._sign = -1 if "loss" in metric else 1
        self._checkpoints = Checkpoints(self._folder, CheckpointConfig(keep_last=1))
        by, values = _kept(workdir)
        self._values = values if by == metric else {}
        self.step = self._checkpoints.newest()
        self._best = self._values.get(str(self.step), -self._sign * math.inf)

    def config(self) -> dict[str, Any]:
        """The configuration of what is kept already."""
        assert self.step is not None
        return self._checkpoints.config(self.step)

    def offer(self, step: int, row: Mapping[str, float], state: State, config: dict[str, Any]) -> None:
        """Keeps a state where the row of its step has a better value than all before. Raises as `Checkpoints.save`."""
        value = row.get(self._metric, math.nan)
        if not self._sign * value > self._sign * self._best:
            return
        self._best, self._values[str(step)] = value, value
        if hosts.is_first():  # before the state: what is kept always has its value here
            kept = {"metric": self._metric, "values": self._values}
            write_whole(self._folder / _VALUES, json.dumps(kept, indent=2) + "\n")
        self._checkpoints.save(step, state, config)

    def wait(self) -> None:
        """Returns when nothing is being written; raises as `Checkpoints.save`."""
        self._checkpoints.wait()

    def close(self) -> None:
        """As `wait`."""
        self._checkpoints.close()


def check_metric(metric: str, train_step: TrainStep) -> None:
    """Raises UserError for a metric that a run does not measure on held-out images."""
    names = sorted(held_out_metrics(train_step))
    if metric not in names:
        raise UserError(
            f"checkpoint.best={metric}: held-out images are measured by {', '.join(names)}; choose of these"
        )


def held_out_metrics(train_step: TrainStep) -> Collection[str]:
    """Names of what a run measures on held-out images."""
    c, shapes = train_step.config, train_step.abstract
    row = jax.ShapeDtypeStruct((c.batch_size,), jnp.float32)
    batch = {**train_step.objective.abstract_batch(c.batch_size), "index": row.update(dtype=jnp.int32), "weight": row}
    sums = jax.eval_shape(train_step.evaluate.jitted, shapes.params, train_step.beside(shapes), batch)
    models = ("", f"_{AVERAGE}") if c.ema_decay else ("",)
    return [f"eval_{name}{model}" for name in sums if name != "weight" for model in models]


def best_of(workdir: epath.Path) -> str:
    """The best checkpoint that a run has kept, in words; empty for none."""
    metric, values = _kept(workdir)
    if not values:
        return ""
    step, value = list(values.items())[-1]
    return f"{metric} {value:.4f} at step {int(step):,}, kept in {workdir / BEST}"


def _kept(workdir: epath.Path) -> tuple[str, dict[str, float]]:
    """The metric, and its values by step, the best last; nothing where none is kept."""
    file = workdir / BEST / _VALUES
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"metric": "", "values": {}}
    return kept["metric"], kept["values"]
