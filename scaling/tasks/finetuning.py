"""Fine-tuning: a pretrained encoder, whole or cut, and a linear head trained together on labelled images.

The run, its checkpoints and its guarantees are those of pretraining (`scaling.training.open_run`). What comes out is
measured on a test split that nothing was chosen on: the parameters are those of the last step.
"""

import dataclasses
import logging
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.core.paths import check_folder
from scaling.data.config import check_source, open_sources
from scaling.data.labels import check_labels
from scaling.data.sources.base import Source
from scaling.data.sources.registry import open_source
from scaling.data.statistics import band_statistics
from scaling.encoders.bands import bands_of
from scaling.encoders.encoder import Encoder
from scaling.evaluation.scores import Predictions
from scaling.models.config import ViTConfig
from scaling.objectives import Batch, ObjectiveConfig
from scaling.parallel.claim import Claim
from scaling.parallel.mesh import batch_sharding, replicated
from scaling.tasks.classification import Classification, Labelling
from scaling.training.config import FinetuneConfig
from scaling.training.loop import Stopped, Trained
from scaling.training.open_run import OpenRun, Watch, open_mesh
from scaling.training.optimizer import OptimizerConfig
from scaling.training.prefetch import evaluation_feed
from scaling.training.state import State
from scaling.training.step import TrainStep
from scaling.training.workdir import in_files, nowhere

log = logging.getLogger(__name__)

_RECIPE = ("remat", "unroll")  # fields of the model that a config may set
_OF_DATA = ("classes", "multi_label")  # fields of the task that it may not


@dataclasses.dataclass(frozen=True)
class Finetuned:
    """What came of fine-tuning.

    Attributes:
      config: the recipe with all that follows from the encoder and the data.
      images: of the training split.
      trained: the classifier.
      predictions: what it says about the test split, beside the truth.
    """

    config: FinetuneConfig
    images: int
    trained: Trained
    predictions: Predictions

    def scores(self) -> dict[str, float]:
        """Every score that applies, in [0, 1]."""
        return self.predictions.scores()


def finetune(
    encoder: Encoder,
    c: FinetuneConfig,
    workdir: epath.PathLike,
    change: Collection[str] = (),
    watch: Watch = in_files,
) -> Finetuned | Stopped:
    """Trains an encoder and a head on labelled images, from where they were left in a working directory, and measures
    them on the test split. Arguments and errors are those of `Finetuning` and of `scaling.training.run.pretrain`.
    """
    folder = check_folder("workdir", workdir, checkpoints=True)
    return Finetuning(encoder, c).run(folder, change, watch)


class Finetuning:
    """One encoder, one data set, one recipe; everything that can be wrong is found out here.

    Args:
      encoder: where the parameters start, and the normalisation where `c.normalise` is `training`.
      c: the recipe.

    Attributes:
      config: the recipe with all that follows from the encoder and the data.
      source, held_out, test: trained on, watched, and measured on at the end.

    Raises:
      UserError: fields that do not belong into a recipe, or data that does not fit the encoder or has no labels.
    """

    def __init__(self, encoder: Encoder, c: FinetuneConfig):
        c.check()
        self._params = encoder.params
        self.source, self.held_out = open_sources(c.data)
        self.test = open_source(c.data.source, c.test_split)
        data, own = c.data, bool(c.data.mean)
        bands = bands_of(encoder, self.source, data.source, data.bands, statistics=own, option="data.bands")
        c = dataclasses.replace(c, data=dataclasses.replace(data, bands=bands))
        for source in {id(s): s for s in (self.source, self.held_out, self.test)}.values():
            check_source(source, encoder.config.bands, c.data)
            check_labels(source, c.data.source, c.test_split if source is self.test else c.data.split)
            if len(source.info.classes) < 2 or source.info.classes != self.source.info.classes:
                raise UserError(f"{c.data.source} has splits without labels, or with other classes than the training")
        self.config = self._resolved(encoder, c)
        self.config.check()
        self._run = OpenRun(self.config, open_mesh(c), self.source, self.held_out, self._begin)

    def _resolved(self, encoder: Encoder, c: FinetuneConfig) -> FinetuneConfig:
        if c.encoder not in ("", encoder.identity):
            raise UserError("encoder follows from the checkpoint; leave it out")
        if (c.steps, c.optimizer.warmup) != (FinetuneConfig.steps, OptimizerConfig.warmup):
            raise UserError("steps and optimizer.warmup follow from epochs and warmup_epochs; leave them out")
        data = c.data
        if not data.mean:
            own = c.normalise == "source"
            mean, std = band_statistics(self.source, data) if own else (encoder.train.data.mean, encoder.train.data.std)
            if not mean:
                raise UserError("the checkpoint does not say how its images are normalised; set normalise=source")
            data = dataclasses.replace(data, mean=mean, std=std)
        per_epoch = len(self.source) / c.batch_size
        steps, warmup = max(round(c.epochs * per_epoch), 1), round(c.warmup_epochs * per_epoch)
        optimizer = dataclasses.replace(c.optimizer, warmup=warmup)
        model, task = _model(encoder.config, c.model), _task(c.task, self.source)
        c = dataclasses.replace(c, model=model, task=task, data=data, steps=steps, optimizer=optimizer)
        return dataclasses.replace(c, encoder=encoder.identity)

    def run(self, workdir: epath.PathLike, change: Collection[str] = (), watch: Watch = nowhere) -> Finetuned | Stopped:
        """Trains from the newest checkpoint of a working directory, or from the encoder, to the end.

        Args:
          workdir: where checkpoints are kept.
          change: see `scaling.training.run.pretrain`.
          watch: what takes the rows, see `scaling.training.workdir`.

        Raises:
          UserError: the working directory is of another run, or another process trains in it.
          TrainingError: the training diverged, in its last step too.
        """
        with Claim(workdir) as claim:
            outcome = self._run.train(epath.Path(workdir), claim, watch, change)
        if isinstance(outcome, Stopped):
            log.info("fine-tuning was %s", outcome)
            return outcome
        return Finetuned(self.config, len(self.source), outcome, self._measure(outcome.state.params))

    def _begin(self, train_step: TrainStep) -> State:
        """The encoder as it was read, and a new head."""
        params = {"encoder": self._params, "head": self._objective().init_head(self.config.seed)}
        state: State = train_step.start(jax.device_put(params, train_step.shardings.params))
        return state

    def _objective(self) -> Classification:
        assert isinstance(self._run.train_step.objective, Classification)
        return self._run.train_step.objective

    def _measure(self, params: Any) -> Predictions:
        """What the classifier says about every readable image of the test split."""
        c, train_step, objective = self.config, self._run.train_step, self._objective()

        def predict(params: Any, batch: Batch) -> Batch:
            return {"logits": objective.logits(params, batch["image"]), **{k: batch[k] for k in ("label", "weight")}}

        inputs = train_step.shardings.params, batch_sharding(train_step.mesh)
        predict_all = train_step.compiled(predict, inputs, replicated(train_step.mesh))
        data = dataclasses.replace(c.data, eval_split=c.test_split, eval_examples=0)
        keys = ("image", "label", "weight")
        parts = []
        measured = dataclasses.replace(c, data=data)
        for _, batch in evaluation_feed(self.test, measured, train_step.mesh, dict.fromkeys(keys)):
            x = jax.device_get(predict_all(params, batch))
            readable = x["weight"] > 0
            parts.append((x["logits"][readable], x["label"][readable]))
        logits, labels = map(np.concatenate, zip(*parts, strict=True))
        return Predictions.of_logits(logits, labels)


def _model(encoder: ViTConfig, recipe: ViTConfig) -> ViTConfig:
    """The encoder's architecture, computed as the recipe says.

    Raises:
      UserError: the recipe sets a field that follows from the checkpoint.
    """
    _check_left_out("model", recipe, tuple(f.name for f in dataclasses.fields(ViTConfig) if f.name not in _RECIPE))
    return dataclasses.replace(encoder, **{field: getattr(recipe, field) for field in _RECIPE})


def _task(recipe: ObjectiveConfig, source: Source) -> Labelling:
    """The task with the classes of a source."""
    if not isinstance(recipe, Labelling):
        raise UserError(f"task.name={recipe.name!r}: only classification can be fine-tuned")
    _check_left_out("task", recipe, _OF_DATA)
    return dataclasses.replace(recipe, classes=len(source.info.classes), multi_label=source.info.multi_label)


def _check_left_out(part: str, config: Any, fields: tuple[str, ...]) -> None:
    for field in fields:
        if getattr(config, field) != getattr(type(config), field):
            raise UserError(f"{part}.{field} follows from the checkpoint and the data; leave it out of the config")
