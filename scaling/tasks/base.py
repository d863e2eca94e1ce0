"""The interface of a labelled task: its targets, head, loss and scores."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

import jax
import numpy as np

from scaling.data.sources.base import Info
from scaling.evaluation.scores import Interval
from scaling.objectives.base import Batch, Objective, ObjectiveConfig


class Scores(Protocol):
    """Predictions of a trained head on a test split, with the truth."""

    def scores(self) -> dict[str, float]:
        """Every score that applies, in [0, 1], by name."""

    def intervals(self) -> dict[str, Interval]:
        """The 95 % interval of each score."""


class TaskConfig(ObjectiveConfig, Protocol):
    """The configuration of a task, made known by `scaling.objectives.base.task`. Its objective is a `Task`.

    Attributes:
      takes: names of the targets that it is trained on; see `scaling.data.targets`.
      of_data: its fields that follow from the data and are not set.
    """

    takes: ClassVar[tuple[str, ...]]
    of_data: ClassVar[tuple[str, ...]]

    def with_data(self, info: Info) -> Self:
        """The configuration with the fields that follow from a source with the targets."""


class Task(Objective, Protocol):
    """An encoder and a head, with an objective on labelled images.

    Attributes:
      pixel_logits: (params, extra, images) -> float32 [B, h, w, K], logits of every pixel of unnormalised images
        [B, h, w, C]; None for a task that does not classify pixels.
      pixel_counts: (logits, targets) -> the counts that `predict` returns for an image, for some of its rows: logits
        [rows, width, K] and the same rows of its targets by name. Counts of all rows add up. None like `pixel_logits`.
      detections: (params, extra, images) -> objects in unnormalised images [B, h, w, C], equally many for each: `boxes`
        float32 [B, N, 5] in le90 and in pixels of these images, `scores` [B, N], `labels` int32 [B, N] and `valid` bool
        [B, N], false for padding; None for a task that does not detect objects.
    """

    @property
    def pixel_logits(self) -> Callable[[Any, dict[str, Any], jax.Array], jax.Array] | None: ...

    @property
    def pixel_counts(self) -> Callable[[np.ndarray, Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None: ...

    @property
    def detections(self) -> Callable[[Any, dict[str, Any], jax.Array], dict[str, jax.Array]] | None: ...

    def init_head(self, seed: int) -> Any:
        """The head alone, before the first step, for an encoder that is already trained."""

    def predict(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        """The values that scores are computed from, an array for each image of a batch with its targets; `extra`
        are the objective's auxiliary trees after the last step.
        """

    def predictions(self, rows: Mapping[str, np.ndarray]) -> Scores:
        """Scorable predictions, from the results of `predict` for every readable image of a test split."""

    def summary(self, predictions: Any, source: str, images: int) -> str:
        """Their scores in words, with the source and the number of training images."""
