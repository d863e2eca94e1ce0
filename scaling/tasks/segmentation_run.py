"""A finished run of segmentation, to tell the pixels of images that it has not seen."""

import jax

from scaling.data.legend import Legend
from scaling.evaluation.windows import Forward, Windows
from scaling.tasks.finished_run import FinishedRun
from scaling.tasks.pixels import pixel_forward, windows_of
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
        """How images are looked at; a stride of 0 is that of the run's own test."""
        return windows_of(self.config, stride or self.config.test_stride, on_each_device * jax.device_count())

    def load(self) -> Forward:
        """Reads the parameters, see `FinishedRun.restored`, and gives what tells pixels by them: `pixel_forward`."""
        train_step, state = self.restored()
        return pixel_forward(train_step, state, train_step.shardings)
