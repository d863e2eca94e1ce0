"""Opens and trains a run, for all that train: from a configuration and its images to the trained state.

sources -> checks -> statistics -> mesh -> checkpoints -> compiled step -> restored or begun -> writers -> loop
"""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import jax
from etils import epath
from jax.sharding import Mesh

from scaling.core.paths import BEST
from scaling.data.config import checked_sources
from scaling.data.sources.base import Source
from scaling.data.statistics import band_statistics
from scaling.data.targets import wanted
from scaling.parallel.claim import CLAIM, Claim
from scaling.parallel.mesh import check_batch, make_mesh
from scaling.training.best import Best, check_history, check_metric, ended_early
from scaling.training.checkpoints import Checkpoints
from scaling.training.config import FinetuneConfig, RunConfig, TrainConfig, step_config
from scaling.training.loop import Stopped, Trained, Trainer
from scaling.training.reading import opened_to_read
from scaling.training.resume import check_same, restore_newest
from scaling.training.state import State
from scaling.training.step import TrainStep
from scaling.training.workdir import losses
from scaling.training.writers import Writer

log = logging.getLogger(__name__)


class Watch(Protocol):
    """Opens the writers for rows after step `start`; see `scaling.training.workdir`."""

    def __call__(
        self, c: RunConfig, train_step: TrainStep, images: int, workdir: epath.Path, start: int, /
    ) -> list[Writer]: ...


def open_mesh(c: RunConfig) -> Mesh:
    """The devices of a run.

    Raises:
      UserError: the number of devices differs from the request, or a batch cannot be divided over them.
    """
    mesh = make_mesh(c.mesh)
    check_batch(c.batch_size, mesh.devices.shape, c.accumulate)
    return mesh


def open_data(c: TrainConfig) -> tuple[TrainConfig, Source, Source]:
    """Training and held-out sources of a run, and its configuration with mean and deviation of the bands.

    Raises:
      UserError: a source cannot be read, or does not fit the model.
    """
    source, held_out = checked_sources(c.data, c.model.bands)
    mean, std = band_statistics(source, c.data)
    return dataclasses.replace(c, data=dataclasses.replace(c.data, mean=mean, std=std)), source, held_out


def from_first_parameters(train_step: TrainStep) -> State:
    """Begins with the parameters that the objective draws."""
    state: State = train_step.init()
    return state


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """A run whose images are open and checked.

    Attributes:
      config: configuration with everything that follows from the images.
      mesh: see `open_mesh`.
      source, held_out: sources for training and evaluation.
      begin: makes the state before the first step if there is no checkpoint.
    """

    config: TrainConfig | FinetuneConfig
    mesh: Mesh
    source: Source
    held_out: Source
    begin: Callable[[TrainStep], State] = from_first_parameters

    @functools.cached_property
    def train_step(self) -> TrainStep:
        """The compiled step. Raises UserError if the images lack a target that the objective needs."""
        train_step = TrainStep(step_config(self.config, jax.default_backend()), self.mesh)
        data = self.config.data
        for source, spec in ((self.source, data.source), (self.held_out, data.eval_source or data.source)):
            wanted(source.info.all_targets, train_step.arrays, spec)
        return train_step

    def rehearse(self, workdir: epath.Path, watch: Watch, change: Collection[str] = ()) -> None:
        """Makes all checks that `train` makes before its first step, announces the run through `watch`, and keeps
        nothing. For arguments and errors see `train`; BusyError if another process trains in the working directory.
        """
        found = None
        if (workdir / CLAIM).exists():
            with Claim(workdir):
                pass
        if (workdir / "checkpoints").is_dir():
            with opened_to_read(workdir) as checkpoints:
                found = checkpoints.newest()
                if found is not None:
                    self._check_resumed(checkpoints.config(found), found, workdir, change)
        if found is not None and self.finished(found, workdir):
            return
        if metric := self.config.checkpoint.best:
            check_metric(metric, self.train_step)
        for writer in watch(self.config, self.train_step, len(self.source), workdir, found or 0):
            writer.close()

    def _check_resumed(
        self, stored: Mapping[str, Any], step: int, workdir: epath.Path, change: Collection[str]
    ) -> None:
        check_same(self.config, stored, step, workdir, change)
        if self._scores_best:
            check_history(workdir, self.config, step)

    @property
    def _scores_best(self) -> bool:
        """Whether the outcome of the run is that of its best step."""
        return isinstance(self.config, FinetuneConfig) and self.config.early_stopping > 0

    def finished(self, step: int, workdir: epath.Path) -> bool:
        """Whether nothing is left to train after a step; that is logged."""
        c = self.config
        early = ended_early(workdir, c.checkpoint.best, c.early_stopping, step) if step < c.steps else ""
        if step < c.steps and not early:
            return False
        why = f", where it ended early: {early}" if early else ""
        log.info(
            "%s is finished: it was trained for %s steps%s; there is nothing left to do", workdir, f"{step:,}", why
        )
        return True

    def train(self, workdir: epath.Path, claim: Claim, watch: Watch, change: Collection[str] = ()) -> Trained | Stopped:
        """Trains from the newest checkpoint of a working directory, or from the beginning, to its end.

        Args:
          workdir: working directory of the run.
          claim: claim on the working directory.
          watch: opens the writers of rows; not called if nothing is left to train.
          change: see `scaling.training.resume.check_same`.

        Raises:
          UserError: the working directory belongs to another run, or none of its checkpoints can be read.
          TrainingError: see `scaling.training.loop.Trainer.fit`.
        """
        c, checkpoints = self.config, Checkpoints(workdir, self.config.checkpoint)
        with contextlib.ExitStack() as closing:  # closes each of them, even if another fails to write its rest
            closing.callback(checkpoints.close)
            found = checkpoints.newest()
            if found is not None:
                self._check_resumed(checkpoints.config(found), found, workdir, change)
            state = (
                self.begin(self.train_step) if found is None else restore_newest(checkpoints, self.train_step, found)
            )
            start = int(state.step)  # unreadable checkpoints are found here, also if training is finished
            if found is not None and self.finished(start, workdir):
                return Trained(state, (losses(workdir) or [{}])[-1], start)
            writers = watch(c, self.train_step, len(self.source), workdir, start)
            for writer in writers:
                closing.callback(writer.close)
            best = None
            if metric := c.checkpoint.best:
                check_metric(metric, self.train_step)
                closing.callback((best := Best(workdir, metric, start)).close)
                if found is None and best.step is not None:
                    check_same(c, best.config(), best.step, workdir / BEST, change)
                    if self._scores_best:
                        check_history(workdir, c, 0)
            trainer = Trainer(
                c, self.train_step, self.source, self.held_out, checkpoints, writers, workdir, claim, best
            )
            return trainer.fit(state)
