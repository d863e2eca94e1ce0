"""Pretraining, from a configuration to a working directory with its last checkpoint."""

import logging
from collections.abc import Collection

from etils import epath

from scaling.core.paths import check_folder, unmade
from scaling.parallel import hosts
from scaling.parallel.claim import Claim
from scaling.training.beginning import begun_with
from scaling.training.config import TrainConfig
from scaling.training.loop import Stopped, Trained
from scaling.training.loss_curve import loss_curve
from scaling.training.open_run import OpenRun, Watch, from_first_parameters, open_data, open_mesh
from scaling.training.workdir import announced, in_files, losses

log = logging.getLogger(__name__)


def pretrain(
    c: TrainConfig, workdir: epath.PathLike, change: Collection[str] = (), watch: Watch = in_files
) -> Trained | Stopped:
    """Trains an encoder in a working directory, resuming from its newest checkpoint, and draws the loss curve.

    Args:
      c: the configuration.
      workdir: folder of the run, from which it is resumed.
      change: fields that may differ from those the run was begun with, in addition to `scaling.training.resume.FREE`.
      watch: opens the writers: files of the working directory, or `scaling.training.workdir.on_screen` too.

    Returns:
      The state after the last step and the last row; or Stopped if a signal stopped the run, even in its last step: the
      caller should then stop too.

    Raises:
      UserError: wrong input, a working directory of another run, or one that another process trains in.
      TrainingError: the loss is not finite, too many images are unreadable, or a checkpoint cannot be written.
    """
    c = c.resolved()
    mesh = open_mesh(c)
    folder = check_folder("workdir", workdir, checkpoints=True)
    with Claim(folder) as claim:
        c, source, held_out = open_data(c)
        c, beginning = begun_with(c, folder)
        run = OpenRun(c, mesh, source, held_out, beginning or from_first_parameters)
        outcome = run.train(folder, claim, watch, change)
        if isinstance(outcome, Stopped):
            log.info("training was %s", outcome)
            return outcome
        if hosts.is_first() and (rows := losses(folder)):
            loss_curve(folder / "figures" / "loss.png", rows)
    return outcome


def rehearse(c: TrainConfig, workdir: epath.PathLike, change: Collection[str] = (), watch: Watch = announced) -> None:
    """Makes all checks that `pretrain` makes before its first step, announces the run, and writes nothing. For
    arguments and errors see `pretrain`.
    """
    c = c.resolved()
    mesh = open_mesh(c)
    with unmade():
        folder = check_folder("workdir", workdir, checkpoints=True)
    c, source, held_out = open_data(c)
    c, beginning = begun_with(c, folder)
    run = OpenRun(c, mesh, source, held_out)
    run.rehearse(folder, watch, change)
    if beginning:
        beginning.say(run.train_step)
