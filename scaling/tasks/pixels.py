"""Telling every pixel of images of any size, with the head that a run of fine-tuning has trained."""

import dataclasses
from typing import Any, Self

import jax
import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.data.legend import Legend
from scaling.encoders.encoder import Encoder, read_checkpoint
from scaling.evaluation.windows import Forward
from scaling.parallel.batches import split_batch
from scaling.parallel.mesh import MeshConfig, batch_sharding, make_mesh, replicated
from scaling.tasks.segmentation import Segmenting
from scaling.training.checkpoints import Checkpoints
from scaling.training.config import FinetuneConfig, kept_config, step_config, stored_config
from scaling.training.resume import kind_of
from scaling.training.state import State
from scaling.training.step import TrainStep


def pixel_forward(train_step: TrainStep, state: State, places: State) -> Forward:
    """Logits of every pixel of windows as they are stored, by a run's parameters, on its mesh.

    Args:
      train_step: of a task that tells pixels.
      state: parameters and what is kept beside them.
      places: how these lie on the devices: `train_step.formats`, or `shardings`.

    Returns:
      pixels [B, h, w, C] of all processes -> float32 [B, h, w, K], split over the devices on the way; B is divisible by
      their number.
    """
    inputs = places.params, train_step.beside(places), batch_sharding(train_step.mesh)
    objective: Any = train_step.objective
    tell = train_step.compiled(objective.pixel_logits, inputs, replicated(train_step.mesh))
    params, beside = state.params, train_step.beside(state)
    return lambda pixels: tell(params, beside, split_batch(pixels, train_step.mesh))


@dataclasses.dataclass(frozen=True)
class SegmentationRun:
    """A finished run of segmentation, of which the configuration has been read.

    Attributes:
      checkpoint: its working directory.
      asked: the step that was asked for; None for the newest.
      config: the recipe with all that follows from the encoder and the data.
    """

    checkpoint: epath.PathLike
    asked: int | None
    config: FinetuneConfig

    @classmethod
    def described(cls, checkpoint: epath.PathLike, step: int | None = None) -> Self:
        """Reads the configuration.

        Args:
          checkpoint: the --workdir of `scaling.finetune`.
          step: which of its checkpoints; the newest by default.

        Raises:
          UserError: there is none, or it is of something else.
        """
        values = read_checkpoint(checkpoint, step, lambda checkpoints, chosen: checkpoints.config(chosen))
        config = stored_config(values)
        if kept_config(values) or not isinstance(config, FinetuneConfig) or not isinstance(config.task, Segmenting):
            kind = "a cut encoder" if kept_config(values) else kind_of(config)
            of = f" for {config.task.name}" if isinstance(config, FinetuneConfig) else ""
            raise UserError(
                f"--checkpoint={checkpoint} is a run of {kind}{of}, which tells no pixels; "
                "give the --workdir of scaling.finetune --task=segmentation"
            )
        return cls(checkpoint, step, config)

    @property
    def task(self) -> Segmenting:
        assert isinstance(self.config.task, Segmenting)
        return self.config.task

    @property
    def legend(self) -> Legend:
        return Legend(self.task.classes, self.task.ignore)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what the network looks at."""
        return (self.config.model.image_size,) * 2

    @property
    def encoder(self) -> Encoder:
        """What is known of its bands, without parameters; see `scaling.encoders.bands`."""
        return Encoder(self.config.model, None, self.config)

    def load(self) -> Forward:
        """Reads the parameters, split over all devices; see `pixel_forward`. Nothing of the optimizer is read.

        Raises:
          UserError: it cannot be read.
        """
        train_step = TrainStep(step_config(self._here(), jax.default_backend()), make_mesh(MeshConfig()))

        def restored(checkpoints: Checkpoints, step: int) -> State:
            shapes, places = train_step.abstract, train_step.shardings
            params = checkpoints.restore_params(step, shapes.params, places.params, train_step.names)
            extra = checkpoints.restore_extra(step, train_step.beside(shapes), train_step.beside(places))
            return State(step=np.int32(step), params=params, opt_state=None, extra=extra)

        return pixel_forward(train_step, read_checkpoint(self.checkpoint, self.asked, restored), train_step.shardings)

    def _here(self) -> FinetuneConfig:
        """As it is computed on these devices, whatever it was trained on."""
        model = dataclasses.replace(self.config.model, attention="auto")
        return dataclasses.replace(self.config, model=model, mesh=MeshConfig(), accumulate=1)
