"""A finished fine-tuning run, read from its working directory for predictions on unseen images."""

import dataclasses
from collections.abc import Collection

import jax
import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.encoders.encoder import Encoder
from scaling.encoders.loading import read_checkpoint
from scaling.parallel.mesh import MeshConfig, make_mesh
from scaling.training.config import FinetuneConfig, step_config
from scaling.training.resume import kind_of
from scaling.training.state import State
from scaling.training.step import TrainStep
from scaling.training.stored import StoredCheckpoints
from scaling.training.stored_config import kept_config, stored_config


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run whose configuration has been read.

    Attributes:
      checkpoint: its working directory.
      asked: the requested step; None for the newest.
      config: the recipe with everything that follows from the encoder and the data.
    """

    checkpoint: epath.PathLike
    asked: int | None
    config: FinetuneConfig

    @property
    def encoder(self) -> Encoder:
        """An encoder without parameters, by which its bands are known; see `scaling.encoders.bands`."""
        return Encoder(self.config.model, None, self.config)

    def restored(self) -> tuple[TrainStep, State]:
        """The parameters and auxiliary trees, split over all devices by the step's `shardings`. Nothing of the
        optimizer is read.

        Raises:
          UserError: they cannot be read.
        """
        train_step = TrainStep(step_config(self._here(), jax.default_backend()), make_mesh(MeshConfig()))

        def restored(checkpoints: StoredCheckpoints, step: int) -> State:
            shapes, places = train_step.abstract, train_step.shardings
            params = checkpoints.restore_params(step, shapes.params, places.params, train_step.names)
            extra = checkpoints.restore_extra(step, train_step.beside(shapes), train_step.beside(places))
            return State(step=np.int32(step), params=params, opt_state=None, extra=extra)

        return train_step, read_checkpoint(self.checkpoint, self.asked, restored)

    def _here(self) -> FinetuneConfig:
        """The configuration for these devices, whatever the run was trained on."""
        model = dataclasses.replace(self.config.model, attention="auto")
        return dataclasses.replace(self.config, model=model, mesh=MeshConfig(), accumulate=1)


def finished_config(checkpoint: epath.PathLike, step: int | None, tasks: Collection[str]) -> FinetuneConfig:
    """Reads the configuration of a run of one of several tasks.

    Args:
      checkpoint: the --workdir of `scaling.finetune`.
      step: step of the checkpoint; None for the newest.
      tasks: names of the accepted tasks.

    Raises:
      UserError: no such checkpoint, or one of another kind.
    """
    values = read_checkpoint(checkpoint, step, lambda checkpoints, chosen: checkpoints.config(chosen))
    config = stored_config(values)
    if kept_config(values) or not isinstance(config, FinetuneConfig) or config.task.name not in tasks:
        kind = "a cut encoder" if kept_config(values) else kind_of(config)
        raise UserError(
            f"--checkpoint={checkpoint} is a run of {kind}, which does not predict anything; give the --workdir of "
            "scaling.finetune"
        )
    return config
