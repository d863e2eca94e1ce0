"""A finished run of segmentation, read from its working directory to tell the pixels of images that it has not seen."""

import dataclasses
from typing import Self

import jax
import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.data.legend import Legend
from scaling.encoders.encoder import Encoder, read_checkpoint
from scaling.evaluation.windows import Forward, Windows
from scaling.parallel.mesh import MeshConfig, make_mesh
from scaling.tasks.pixels import pixel_forward, windows_of
from scaling.tasks.segmentation import Segmenting
from scaling.training.checkpoints import Checkpoints
from scaling.training.config import FinetuneConfig, kept_config, step_config, stored_config
from scaling.training.resume import kind_of
from scaling.training.state import State
from scaling.training.step import TrainStep


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

    def windows(self, stride: int, on_each_device: int) -> Windows:
        """How images are looked at; a stride of 0 is that of the run's own test."""
        return windows_of(self.config, stride or self.config.test_stride, on_each_device * jax.device_count())

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
