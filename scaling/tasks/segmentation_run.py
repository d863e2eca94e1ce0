"""A finished segmentation run, for the pixels of unseen images."""

from typing import Any

import jax

from scaling.data.legend import Legend
from scaling.evaluation.windows import Forward, Windows
from scaling.tasks.finished_run import FinishedRun
from scaling.tasks.pixels import forward_of, windows_of
from scaling.tasks.segmentation import Segmenting


class SegmentationRun(FinishedRun):
    """See `FinishedRun`."""

    @property
    def task(self) -> Segmenting:
        assert isinstance(self.config.task, Segmenting)
        return self.config.task

    @property
    def legend(self) -> Legend:
        return Legend(self.task.classes, self.task.ignore)

    def windows(self, stride: int, on_each_device: int) -> Windows:
        """Windows through which images are processed; a stride of 0 is that of the run's own test."""
        return windows_of(self.config, stride or self.config.test_stride, on_each_device * jax.device_count())

    def load(self) -> Forward:
        """Reads the parameters, see `FinishedRun.restored`, and returns the function that classifies pixels:
        `forward_of`.
        """
        train_step, state = self.restored()
        objective: Any = train_step.objective
        return forward_of(train_step, objective.pixel_logits, state, train_step.shardings)
