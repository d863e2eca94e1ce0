"""What a labelled problem is: its targets, its head, its loss and its scores, in one place."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

import jax
import numpy as np

from scaling.data.sources.base import Info
from scaling.evaluation.scores import Interval
from scaling.objectives.base import Batch, Objective, ObjectiveConfig


class Scores(Protocol):
    """What a trained head says about a test split, beside the truth."""

    def scores(self) -> dict[str, float]:
        """Every score that applies, in [0, 1], by name."""

    def intervals(self) -> dict[str, Interval]:
        """The 95 % interval of each of them."""


class TaskConfig(ObjectiveConfig, Protocol):
    """The configuration of a task, made known by `scaling.objectives.base.task`. Its objective is a `Task`.

    Attributes:
      takes: names of the targets that it is trained on; see `scaling.data.targets`.
      of_data: its fields that follow from the data and are not set.
    """

    takes: ClassVar[tuple[str, ...]]
    of_data: ClassVar[tuple[str, ...]]

    def with_data(self, info: Info) -> Self:
        """With what follows from a source that has the targets."""


class Task(Objective, Protocol):
    """An encoder and a head, and what is learned of a target.

    Attributes:
      pixel_logits: (params, extra, images) -> float32 [B, h, w, K] of every pixel of images as they are stored
        [B, h, w, C]; None of a task that tells images apart, not pixels.
      pixel_counts: (logits, targets) -> what `predict` says of an image, of some of its rows alone: logits
        [rows, width, K] and the same rows of its targets by name; the counts of all rows add up. None as that.
      detections: (params, extra, images) -> the objects of images as they are stored [B, h, w, C], as many for each:
        `boxes` float32 [B, N, 5] in le90 and in pixels of these images, `scores` [B, N], `labels` int32 [B, N] and
        `valid` bool [B, N], which of them there are; None of a task that finds none.
    """

    @property
    def pixel_logits(self) -> Callable[[Any, dict[str, Any], jax.Array], jax.Array] | None: ...

    @property
    def pixel_counts(self) -> Callable[[np.ndarray, Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None: ...

    @property
    def detections(self) -> Callable[[Any, dict[str, Any], jax.Array], dict[str, jax.Array]] | None: ...

    def init_head(self, seed: int) -> Any:
        """The head alone, before the first step on an encoder that is trained already."""

    def predict(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        """What the scores are made of, an array for each image, from a batch with its targets; `extra` are the
        auxiliary trees of the objective after the last step.
        """

    def predictions(self, rows: Mapping[str, np.ndarray]) -> Scores:
        """What is scored, from what `predict` says of every readable image of a test split."""

    def summary(self, predictions: Any, source: str, images: int) -> str:
        """Their scores in words: on which source, and trained on how many images."""
