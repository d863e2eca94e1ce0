"""The training loop. Its order, stated once: batch, step, evaluate, log, save.

Evaluation comes before the log so that a step has one row; saving comes last so that every row up to a checkpoint's
step is on disk before the checkpoint is. The host never waits for the step it has just dispatched: a row is written
when the next step is under way, and the host runs at most `AHEAD` steps ahead of the devices.
"""

import contextlib
import dataclasses
import logging
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from scaling.core.config import config_dict
from scaling.core.errors import TrainingError
from scaling.core.files import in_bucket
from scaling.data.bad_images import BadImages
from scaling.data.labels import require_labels
from scaling.data.overflow import Overflow
from scaling.data.sources.base import Source
from scaling.parallel.claim import Claim
from scaling.parallel.hosts import is_first
from scaling.parallel.stopping import StopRequest
from scaling.training.best import Best
from scaling.training.checkpoints import Checkpoints
from scaling.training.config import RunConfig
from scaling.training.prefetch import Feed, evaluation_feed, training_feed
from scaling.training.saving import SaveSchedule
from scaling.training.state import AVERAGE, State
from scaling.training.step import TrainStep
from scaling.training.throughput import Clock
from scaling.training.watchdog import Watchdog
from scaling.training.writers import Writer

log = logging.getLogger(__name__)

AHEAD = 2


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run that has reached its last step, or one at which it ends early.

    Attributes:
      state: state after that step; it occupies the devices while this object exists.
      metrics: the last row, with loss, rates and held-out loss; empty if no rows were kept.
      start: step that the run was resumed from; the last step if nothing was left to train.
    """

    state: State
    metrics: Mapping[str, float]
    start: int


@dataclasses.dataclass(frozen=True)
class Stopped:
    """A run that a signal ended after a step was saved.

    Attributes:
      by: SIGINT (Ctrl-C) or SIGTERM.
      step: the saved step, which may be the last one.
    """

    by: signal.Signals
    step: int

    def __str__(self) -> str:
        by = "Ctrl-C" if self.by == signal.SIGINT else self.by.name
        return f"stopped by {by} after saving; the same command resumes"

    @property
    def exit_code(self) -> int:
        """Exit code of a process ended by the signal, as shells and schedulers know it: 143 is "preempted, restart
        me".
        """
        return 128 + self.by


@dataclasses.dataclass
class Trainer:
    """Trains one run: its configuration, data, compiled step, checkpoints and writers."""

    config: RunConfig
    train_step: TrainStep
    source: Source
    held_out: Source
    checkpoints: Checkpoints
    writers: list[Writer]
    workdir: epath.Path
    claim: Claim
    best: Best | None = None

    def fit(self, state: State) -> Trained | Stopped:
        """Trains from `state` to the last step, or to the step at which `c.early_stopping` ends it. Returns Stopped if
        SIGTERM or SIGINT arrived before the end, even in the last step: the state is saved, and the caller should stop
        too.

        Raises:
          TrainingError: the loss is not finite, too many images are unreadable, or a checkpoint cannot be written.
        """
        c, start = self.config, int(state.step)
        stop, bad, overflow = StopRequest(), BadImages(c.data.max_bad_share, c.data), Overflow()
        mesh, arrays = self.train_step.mesh, self.train_step.arrays
        feed = training_feed(self.source, c, mesh, arrays, seed=c.seed, start=start)
        rows = MetricRows(self, feed, start)
        saves = SaveSchedule(c.checkpoint_every, c.checkpoint_minutes, start)
        try:
            for step in range(start + 1, c.steps + 1):
                host, batch = next(feed)
                bad.update(host, self.source)
                overflow.update(host, self.source)
                if "label" in arrays:
                    require_labels(host, self.source, c.data.source)
                state, metrics = self.train_step.step(state, batch)
                rows.add(step, metrics)
                last, stopping, ended = step == c.steps, stop.received(), ""
                if last or step % c.eval_every == 0:
                    jax.block_until_ready(state)  # earlier steps count as training time, evaluation does not
                    with rows.overhead():
                        held_out = self.evaluate(state, step)
                    rows.write(step, held_out)
                    if self.best:
                        self.claim.check()
                        with rows.overhead():
                            self.best.offer(step, held_out, state, config_dict(c).to_dict())
                        ended = "" if last else self.best.ended(c.early_stopping)
                if saves.due(step) or last or stopping or ended:
                    rows.flush()
                    self.claim.check()
                    with rows.overhead():
                        self.checkpoints.save(step, state, config_dict(c).to_dict())
                    saves.saved(step)
                if ended:
                    log.info("ended early after step %s of %s: %s", f"{step:,}", f"{c.steps:,}", ended)
                if stopping or ended:
                    break
            with rows.overhead():
                self.checkpoints.wait()
            if self.best:
                self.best.wait()
            if stopping or stop.received():  # checked again, since evaluating and saving take time
                return Stopped(stop.by, step)
            return Trained(state, rows.latest, start)
        finally:
            rows.watchdog.close()
            stop.close()
            feed.close()

    def evaluate(self, state: State, step: int) -> dict[str, float]:
        """Means over the held-out images, including `eval_loss`, and a picture if the objective has one."""
        c, extra = self.config, self.train_step.beside(state)
        arrays = {**self.train_step.arrays, "index": None, "weight": None}
        models = {"": state.params} | ({f"_{AVERAGE}": state.extra[AVERAGE]} if c.ema_decay else {})
        totals: dict[str, list[Any]] = {name: [] for name in models}
        for i, (host, batch) in enumerate(evaluation_feed(self.held_out, c, self.train_step.mesh, arrays)):
            for name, params in models.items():
                totals[name].append(self.train_step.evaluate(params, extra, batch))
            if i == 0 and self.train_step.picture:
                real = host["weight"] > 0 if jax.process_count() == 1 else None
                self._draw(self.train_step.picture(state.params, batch), step, real)
        means: dict[str, float] = {}
        for model, parts in jax.device_get(totals).items():
            weight = sum(part.pop("weight") for part in parts)
            if not weight:
                log.warning("no held-out image of %s is readable, so there is no eval_loss", c.data.source)
                return {}
            means |= {f"eval_{name}{model}": float(sum(part[name] for part in parts) / weight) for name in parts[0]}
        for name, value in means.items():
            if not np.isfinite(value) and is_first():
                log.warning("%s is %s at step %s: it is never taken for the best", name, value, f"{step:,}")
        return means

    def _draw(self, arrays: dict[str, jax.Array], step: int, real: np.ndarray | None) -> None:
        """Draws the first images of a batch, without padding if `id` marks it."""
        draw = self.train_step.objective.draw
        if draw and is_first() and (real is None or real.any()):
            some = {
                name: np.asarray(x) if real is None else np.asarray(x)[real[: len(x)]] for name, x in arrays.items()
            }
            try:
                path = panel_path(self.workdir, step)
                draw(path, some)
                for writer in self.writers if path.exists() else ():
                    writer.picture(step, "reconstruction", path)
            except Exception as e:
                if not in_bucket(self.workdir):
                    raise
                log.warning("the picture of step %d could not be written; the run continues: %s", step, e)


def panel_path(workdir: epath.Path, step: int) -> epath.Path:
    """File of the reconstructions of a step."""
    return workdir / "figures" / f"reconstruction_{step:08d}.png"


class MetricRows:
    """Turns the metrics of the steps into written rows, one step late, so that the devices never wait for the host."""

    def __init__(self, trainer: Trainer, feed: Feed, start: int):
        self._trainer, self._feed = trainer, feed
        self._pending: dict[int, dict[str, jax.Array]] = {}  # metrics of the steps since the last row, on the device
        self.clock = Clock(trainer.config.batch_size, trainer.train_step.flops_by_step())
        self.watchdog = Watchdog()
        self._first = start + 1
        self.latest: dict[str, float] = {}  # row

    @contextlib.contextmanager
    def overhead(self) -> Iterator[None]:
        """Context for work that is not training and may take long."""
        with self.watchdog.rests(), self.clock.overhead():
            yield

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of a step that has been dispatched; writes the row of the previous step if it is due."""
        if step == self._first:
            with self.overhead():  # compilation
                jax.block_until_ready(metrics)
            self.clock.restart(step, self._feed.waited)
        if (step - 1) in self._pending and (step - 1) % self._trainer.config.log_every == 0:
            self.write(step - 1)
        self._pending[step] = metrics
        if step - AHEAD in self._pending:
            jax.block_until_ready(self._pending[step - AHEAD])
            for writer in self._trainer.writers:
                writer.advance(step - AHEAD)
        self.watchdog.step()

    def flush(self) -> None:
        """Writes the row of the newest step if it is due, and checks in any case that its loss is finite; all rows
        are then stored.
        """
        if self._pending and (step := max(self._pending)) % self._trainer.config.log_every == 0:
            self.write(step)
        elif self._pending:
            self._fetch()
        for writer in self._trainer.writers:
            writer.settle()

    def write(self, step: int, more: dict[str, float] | None = None) -> None:
        """Writes the row of a step, with the rates since the row before."""
        values = self._fetch()[step]
        row = {name: float(x) for name, x in values.items()} | self.clock.rates(step, self._feed.waited) | (more or {})
        for writer in self._trainer.writers:
            writer.write(step, row)
        self._pending, self.latest = {}, row
        self.clock.restart(step, self._feed.waited)

    def _fetch(self) -> dict[int, dict[str, np.ndarray]]:
        fetched = jax.device_get(self._pending)
        for step, values in fetched.items():
            for name in ("loss", "grad_norm", "param_norm"):
                if not np.isfinite(values[name]):
                    latest = self._trainer.checkpoints.latest()
                    kept = f"the checkpoint of step {latest} is kept" if latest else "nothing was saved yet"
                    raise TrainingError(
                        f"{name} is {values[name]} at step {step}; {kept}. Lower optimizer.base_lr, set "
                        "optimizer.clip_norm, or look for bad values in the data, and start again"
                    )
        return fetched
