"""The best checkpoint of a run by a held-out metric, kept beside its newest ones, and the end of a run that has stopped
getting better.

It is in `WORKDIR/best`, which every command reads like a working directory: `--checkpoint=WORKDIR/best`.
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
from scaling.training.config import RunConfig
from scaling.training.state import AVERAGE, State
from scaling.training.step import TrainStep

log = logging.getLogger(__name__)

# A file in that folder: the metric, its values at steps that have been the best, and at all evaluated steps.
_VALUES = "values.json"


class Best:
    """Keeps the state of the step with the best value of a metric.

    Args:
      workdir: working directory of the run.
      metric: name of the metric in rows; for a loss the smallest value is best, for other metrics the largest.
      start: step that the run is resumed from; evaluations after it will be made again.

    Attributes:
      step: step already kept; None if there is none.
    """

    def __init__(self, workdir: epath.Path, metric: str, start: int = 0):
        self._folder, self._metric = workdir / BEST, metric
        self._checkpoints = Checkpoints(self._folder, CheckpointConfig(keep_last=1))
        by, values, evaluated = _kept(workdir)
        self._values = values if by == metric else {}
        self._evaluated = {step: x for step, x in evaluated.items() if by == metric and int(step) <= start}
        self.step = self._checkpoints.newest()
        self._best = self._values.get(str(self.step), -_sign(metric) * math.inf)

    def config(self) -> dict[str, Any]:
        """The configuration of the checkpoint already kept."""
        assert self.step is not None
        return self._checkpoints.config(self.step)

    def offer(self, step: int, row: Mapping[str, float], state: State, config: dict[str, Any]) -> None:
        """Keeps a state if the row of its step has a better value than all before; a value that is missing or not
        finite is no improvement. For errors see `Checkpoints.save`.
        """
        value = row.get(self._metric, math.nan)
        finite = math.isfinite(value)
        self._evaluated[str(step)] = value if finite else None
        if better := finite and _sign(self._metric) * value > _sign(self._metric) * self._best:
            self._best, self._values[str(step)] = value, value
        if hosts.is_first():  # before the state, so that a kept state always has its value here
            kept = {"metric": self._metric, "values": self._values, "evaluated": self._evaluated}
            write_whole(self._folder / _VALUES, json.dumps(kept, indent=2) + "\n")
        if better:
            self._checkpoints.save(step, state, config)

    def ended(self, patience: int) -> str:
        """See `ended_early`, of the newest evaluation."""
        return _ended(self._metric, self._evaluated, patience)

    def wait(self) -> None:
        """Waits for pending writes; for errors see `Checkpoints.save`."""
        self._checkpoints.wait()

    def close(self) -> None:
        """Waits as by `wait`, and closes."""
        self._checkpoints.close()


def check_metric(metric: str, train_step: TrainStep) -> None:
    """Raises UserError for a metric that the run does not measure on held-out images."""
    names = sorted(held_out_metrics(train_step))
    if metric not in names:
        raise UserError(
            f"checkpoint.best={metric}: must be a metric of the held-out images; choose one of {', '.join(names)}"
        )


def held_out_metrics(train_step: TrainStep) -> Collection[str]:
    """Names of the metrics that a run measures on held-out images."""
    c, shapes = train_step.config, train_step.abstract
    row = jax.ShapeDtypeStruct((c.batch_size,), jnp.float32)
    batch = {**train_step.objective.abstract_batch(c.batch_size), "index": row.update(dtype=jnp.int32), "weight": row}
    sums = jax.eval_shape(train_step.evaluate.jitted, shapes.params, train_step.beside(shapes), batch)
    models = ("", f"_{AVERAGE}") if c.ema_decay else ("",)
    return [f"eval_{name}{model}" for name in sums if name != "weight" for model in models]


def best_step(workdir: epath.Path, metric: str) -> int | None:
    """The step that a run has kept as the best by this metric; None if there is none."""
    by, values, _ = _kept(workdir)
    return int(list(values)[-1]) if by == metric and values else None


def best_of(workdir: epath.Path) -> str:
    """Description of the best checkpoint that a run has kept; empty if there is none."""
    metric, values, _ = _kept(workdir)
    if not values:
        return ""
    step, value = list(values.items())[-1]
    return f"{metric} {value:.4f} at step {int(step):,}, kept in {workdir / BEST}"


def ended_early(workdir: epath.Path, metric: str, patience: int, step: int) -> str:
    """The reason for ending a run before its last step: `patience` consecutive evaluations that were not better than
    the best one before, or not finite. Empty if there is none, or if `patience` is 0.
    """
    by, _, evaluated = _kept(workdir)
    until = {at: value for at, value in evaluated.items() if by == metric and int(at) <= step}
    return _ended(metric, until, patience)


def check_history(workdir: epath.Path, c: RunConfig, step: int) -> None:
    """Compares the evaluations of a run up to `step` with those that `c.early_stopping` needs to choose a step.

    Raises:
      UserError: the run was evaluated by another metric or without a record, or trained beyond its end by
        `c.early_stopping`: one that had these fields from its first step would have another best step.
    """
    metric, patience = c.checkpoint.best, c.early_stopping
    remedy = "set early_stopping=0 to score the last step, or choose another --workdir"
    by, _, evaluated = _kept(workdir)
    if by not in ("", metric):
        raise UserError(
            f"checkpoint.best={metric}: the best step in {workdir / BEST} was chosen by {by}; set that, {remedy}"
        )
    steps = sorted(int(at) for at in evaluated if int(at) <= step)
    due = min(c.eval_every, c.steps)
    if step >= due and (not steps or steps[0] > due):
        raise UserError(
            f"early_stopping={patience}: {workdir} has no record of {metric} from the first evaluation; {remedy}"
        )
    for count, at in enumerate(steps[:-1], 1):
        if _ended(metric, {str(s): evaluated[str(s)] for s in steps[:count]}, patience):
            raise UserError(
                f"early_stopping={patience}: the run in {workdir} would have ended at step {at:,} but was trained to "
                f"step {step:,} without it; {remedy}"
            )


def _ended(metric: str, evaluated: Mapping[str, float | None], patience: int) -> str:
    steps = sorted(evaluated, key=int)
    finite = {step: value for step in steps if (value := evaluated[step]) is not None and math.isfinite(value)}
    best = max(finite, key=lambda step: _sign(metric) * finite[step], default="")  # the first of equal ones
    passed = len(steps) - (steps.index(best) + 1 if best else 0)
    if not patience or passed < patience:
        return ""
    many = f"{passed} evaluation{'s' if passed > 1 else ''}"
    if not best:
        return f"none of the {many} has a finite {metric}"
    return f"none of the {many} since step {int(best):,} has been better than its {metric} of {finite[best]:.4f}"


def _sign(metric: str) -> int:
    return -1 if "loss" in metric else 1


def _kept(workdir: epath.Path) -> tuple[str, dict[str, float], dict[str, float | None]]:
    """The metric, its values at steps that have been the best (the best last), and all values by step, None for one
    that is not finite; empty if nothing is kept. Older runs did not record all values.
    """
    file = workdir / BEST / _VALUES
    kept: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"metric": "", "values": {}}
    return kept["metric"], kept["values"], kept.get("evaluated", {})
