"""A finished detection run, for the objects in unseen images."""

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
        """Class names, in the order of their indices."""
        task: Any = self.config.task
        classes: tuple[str, ...] = task.classes
        return classes

    @property
    def rules(self) -> Rules:
        """The rules by which the run scores its own test split."""
        task: Any = self.config.task
        return RULES[task.rules]

    def tiling(self, stride: int, rates: tuple[float, ...]) -> Tiling:
        """The tiling of images into squares of the model's size, at several scales.

        Args:
          stride: pixels from one tile to the next; 0 for 824 of 1024, as DOTA is cut.
          rates: scales by which images are resized first.

        Raises:
          UserError: the model does not take squares, or the stride would leave gaps.
        """
        height, width = self.config.model.image_shape
        if height != width:
            raise UserError(f"--checkpoint={self.checkpoint}: takes {height} x {width} pixels, and tiles are square")
        if stride > width:
            raise UserError(f"--stride={stride}: must not skip pixels; tiles have {width} x {width}")
        return tiling_of(self.config, stride, rates)

    def batch(self, on_each_device: int) -> int:
        """Number of tiles per batch on all devices."""
        return on_each_device * jax.device_count()

    def load(self) -> Tell:
        """Reads the parameters, see `FinishedRun.restored`, and returns the function that finds objects:
        `Task.detections`.
        """
        train_step, state = self.restored()
        objective: Any = train_step.objective
        return forward_of(train_step, objective.detections, state, train_step.shardings)
