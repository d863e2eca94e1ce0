"""A finished run of detection, to find the objects of images that it has not seen."""

from typing import Any

import jax

from scaling.core.errors import UserError
from scaling.data.tiling import Tiling
from scaling.evaluation.detection import RULES, Rules
from scaling.tasks.finding import Tell
from scaling.tasks.finished_run import FinishedRun
from scaling.tasks.objects import tiling_of
from scaling.tasks.pixels import forward_of


class DetectionRun(FinishedRun):
    """See `FinishedRun`."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of their numbers."""
        task: Any = self.config.task
        classes: tuple[str, ...] = task.classes
        return classes

    @property
    def rules(self) -> Rules:
        """By which the run scores its own test split."""
        task: Any = self.config.task
        return RULES[task.rules]

    def tiling(self, stride: int, rates: tuple[float, ...]) -> Tiling:
        """How images are cut: into squares of the size that the model takes, at these sizes of the images.

        Args:
          stride: pixels from one tile to the next; 0 for 824 of 1024, as DOTA is cut.
          rates: by which images are resized before.

        Raises:
          UserError: the model does not take squares, or pixels would be passed over.
        """
        height, width = self.config.model.image_shape
        if height != width:
            raise UserError(f"--checkpoint={self.checkpoint}: takes {height} x {width} pixels, and tiles are square")
        if stride > width:
            raise UserError(f"--stride={stride}: pixels would be passed over; tiles have {width} x {width}")
        return tiling_of(self.config, stride, rates)

    def batch(self, on_each_device: int) -> int:
        """Tiles at a time on all devices."""
        return on_each_device * jax.device_count()

    def load(self) -> Tell:
        """Reads the parameters, see `FinishedRun.restored`, and gives what finds objects by them: `Task.detections`."""
        train_step, state = self.restored()
        objective: Any = train_step.objective
        return forward_of(train_step, objective.detections, state, train_step.shardings)
