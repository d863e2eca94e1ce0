"""Slimmable fine-tuning: one classifier whose cuts can each be used, as `scaling.objectives.slimmable` trains them."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, Self, cast

import jax
import numpy as np

from scaling.core.config import copied
from scaling.core.errors import UserError
from scaling.data.sources.base import Info
from scaling.evaluation.scores import Predictions
from scaling.evaluation.summary import summary
from scaling.models.config import ViTConfig
from scaling.objectives.base import TASKS, Batch, Inputs, ObjectiveConfig, objective_config, task
from scaling.objectives.sandwich import Cut, Narrow, Recipe, Sandwich, trained_of
from scaling.objectives.slimmable import Slimmable
from scaling.tasks.classification import Classification, Labelling


@task
@dataclasses.dataclass(frozen=True)
class SlimmableLabelling(Slimmable):
    """The configuration of the task; fields as in `Slimmable`, with `task.wraps` instead of `objective.wraps`."""

    place: ClassVar[str] = "task"
    cuttable: ClassVar[str] = "classification"
    takes: ClassVar[tuple[str, ...]] = Labelling.takes
    of_data: ClassVar[tuple[str, ...]] = ()

    name: str = "slimmable_classification"
    wraps: ObjectiveConfig = dataclasses.field(
        default_factory=partial(objective_config, "classification"), metadata={"kinds": TASKS}
    )

    @property
    def labelling(self) -> Labelling:
        """The classification that is trained at every width.

        Raises:
          UserError: another task is wrapped.
        """
        if not isinstance(self.wraps, Labelling):
            raise UserError(f"task.wraps.name={self.wraps.name}: cannot be cut; choose {self.cuttable}")
        return self.wraps

    def check(self, model: ViTConfig) -> None:
        _ = self.labelling
        super().check(model)

    def with_data(self, info: Info) -> Self:
        for field in Labelling.of_data:
            if getattr(self.labelling, field) != getattr(Labelling, field):
                raise UserError(f"task.wraps.{field} follows from the data; leave it out of the config")
        return dataclasses.replace(self, wraps=self.labelling.with_data(info))

    def make(self, model: ViTConfig, inputs: Inputs) -> "SlimmableClassification":
        narrow = tuple(Narrow(cut, model, inputs) for cut in self.cuts(model))
        return SlimmableClassification(self, self.labelling.make(model, inputs), narrow, inputs.steps)


@dataclasses.dataclass(frozen=True, repr=False)
class WidthPredictions(Predictions):
    """Predictions at full width, with those of the cuts.

    Attributes:
      mode: axes that are cut.
      narrower: each cut network and its predictions for the same images, from the smallest.
    """

    mode: str = ""
    narrower: tuple[tuple[Cut, Predictions], ...] = ()


class SlimmableClassification(Sandwich):
    """The objective; see `scaling.tasks.base.Task`. Its logits are those of the full width; the narrower networks that
    are trained are scored too.
    """

    pixel_logits = pixel_counts = detections = None

    def __init__(self, c: SlimmableLabelling, full: Classification, narrow: tuple[Narrow, ...], steps: int):
        super().__init__(copied(Recipe, c), full, narrow, steps)
        self._trained = trained_of(c, narrow)
        self.init_head, self.logits = full.init_head, full.logits
        self._classification, self._mode = full, c.mode

    def logits_at(self, width: float) -> Callable[[Any, jax.Array], jax.Array]:
        """(params, unnormalised images) -> float32 [B, K], of the cut of a trained width below 1."""
        (network,) = (network for network in self._trained if np.isclose(network.width, width))
        return partial(_cut_logits, network)

    def predict(self, params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
        found = self._classification.predict(params, extra, batch)
        cuts = {f"logits_{i}": _cut_logits(network, params, batch["image"]) for i, network in enumerate(self._trained)}
        return found | cuts

    def predictions(self, rows: Mapping[str, np.ndarray]) -> WidthPredictions:
        full = Predictions.of_logits(rows["logits"], rows["label"])
        cuts = tuple(
            (network.cut, Predictions.of_logits(rows[f"logits_{i}"], rows["label"]))
            for i, network in enumerate(self._trained)
        )
        return WidthPredictions(full.predicted, full.truth, mode=self._mode, narrower=cuts)

    def summary(self, predictions: WidthPredictions, source: str, images: int) -> str:
        named = {f"width {cut.width:g}": found for cut, found in reversed(predictions.narrower)}
        return summary("fine-tuning,", source, images, {"width 1": predictions, **named})


def _cut_logits(network: Narrow, params: Any, images: jax.Array) -> jax.Array:
    found: jax.Array = cast(Classification, network.objective).logits(network.of(params), images)
    return found
