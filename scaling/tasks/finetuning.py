"""Fine-tuning: a pretrained encoder, whole or cut, and a linear head trained together on labelled images.

The loop, the checkpoints and the guarantees are those of pretraining (`scaling.training`). What comes out is an
`Outcome` on a test split that nothing was chosen on: the parameters are those of the last step.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.data.config import check_source, open_sources
from scaling.data.labels import check_labels
from scaling.data.sources.base import Source
from scaling.data.sources.registry import open_source
from scaling.data.statistics import band_statistics
from scaling.encoders.bands import bands_of
from scaling.encoders.encoder import Encoder
from scaling.evaluation.scores import Outcome
from scaling.models.config import ViTConfig
from scaling.objectives import Batch, ObjectiveConfig
from scaling.parallel.claim import Claim
from scaling.parallel.mesh import batch_sharding, check_batch, make_mesh, replicated
from scaling.tasks.classification import Classification, Labelling
from scaling.training.checkpoints import Checkpoints
from scaling.training.config import FinetuneConfig, step_config
from scaling.training.loop import Run
from scaling.training.optimizer import OptimizerConfig
from scaling.training.prefetch import evaluation_feed
from scaling.training.resume import check_same, restore_newest
from scaling.training.step import Trainer
from scaling.training.writers import Writer

log = logging.getLogger(__name__)

OpenWriters = Callable[[FinetuneConfig, epath.Path, int], list[Writer]]

_RECIPE = ("remat", "unroll")  # fields of the model that a config may set
_OF_DATA = ("classes", "multi_label")  # fields of the task that it may not


class Finetuning:
    """One encoder, one data set, one recipe; everything that can be wrong is found out here.

    Args:
      encoder: where the parameters start, and the normalisation where `c.normalise` is `training`.
      c: the recipe.

    Attributes:
      config: the recipe with all that follows from the encoder and the data.
      source, held_out, test: trained on, watched, and measured on at the end.
      trainer: of the classifier.

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
            if len(source.class_names) < 2 or source.class_names != self.source.class_names:
                raise UserError(f"{c.data.source} has splits without labels, or with other classes than the training")
        self.config = self._resolved(encoder, c)
        self.config.check()
        mesh = make_mesh(c.mesh)
        check_batch(c.batch_size, mesh.devices.shape, c.accumulate)
        self.trainer = Trainer(step_config(self.config, jax.default_backend()), mesh)

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

    def run(
        self,
        workdir: epath.Path,
        writers: OpenWriters = lambda config, workdir, start: [],
        change: Collection[str] = (),
    ) -> Outcome | None:
        """Trains from the newest checkpoint of a working directory, or from the encoder, to the end.

        Args:
          workdir: where checkpoints are kept.
          writers: opens what takes the rows behind a step; `scaling.training.workdir.open_writers`, or nothing.
          change: see `scaling.training.run.train`.

        Returns:
          The outcome on the test split; None where SIGTERM or SIGINT came first (the state is saved then).

        Raises:
          UserError: the working directory is of another run, or another process trains in it.
          TrainingError: the training diverged, in its last step too.
        """
        with Claim(workdir) as claim:
            params = self._train(workdir, writers, change, claim)
        return None if params is None else self._measure(params)

    def _train(
        self, workdir: epath.Path, writers: OpenWriters, change: Collection[str], claim: Claim
    ) -> dict[str, Any] | None:
        """The parameters of the last step; None where a signal came first."""
        c, trainer, checkpoints = self.config, self.trainer, Checkpoints(workdir, self.config.checkpoint)
        with contextlib.ExitStack() as closing:  # each of them, also where another has no room for its rest
            closing.callback(checkpoints.close)
            start = checkpoints.newest()
            if start is None:
                params = {"encoder": self._params, "head": self._objective().init_head(c.seed)}
                state = trainer.start(jax.device_put(params, trainer.shardings.params))
            else:
                check_same(c, self._with_encoder(checkpoints.config(start), workdir), start, workdir, change)
                state = restore_newest(checkpoints, trainer, start)
            start = int(state.step)
            if start >= c.steps:
                return state.params
            opened = writers(c, workdir, start)
            for writer in opened:
                closing.callback(writer.close)
            run = Run(c, trainer, self.source, self.held_out, checkpoints, opened, workdir, claim)
            last = run.train(state)
            return None if last is None else last.params

    def _with_encoder(self, stored: dict[str, Any], workdir: epath.Path) -> dict[str, Any]:
        """A stored configuration; one of before it said which encoder training began with is taken to be of this."""
        if "epochs" in stored and "encoder" not in stored:
            log.info("%s does not say which encoder it began with: taken to be this one", workdir)
            return stored | {"encoder": self.config.encoder}
        return stored

    def _objective(self) -> Classification:
        assert isinstance(self.trainer.objective, Classification)
        return self.trainer.objective

    def _measure(self, params: Any) -> Outcome:
        """What the classifier says about every readable image of the test split."""
        c, mesh, objective = self.config, self.trainer.mesh, self._objective()

        def predict(params: Any, batch: Batch) -> Batch:
            return {"logits": objective.logits(params, batch["image"]), **{k: batch[k] for k in ("label", "weight")}}

        inputs = self.trainer.shardings.params, batch_sharding(mesh)
        predict_all = self.trainer.compiled(predict, inputs, replicated(mesh))
        data = dataclasses.replace(c.data, eval_split=c.test_split, eval_examples=0)
        keys = ("image", "label", "weight")
        parts = []
        for _, batch in evaluation_feed(self.test, dataclasses.replace(c, data=data), mesh, keys):
            x = jax.device_get(predict_all(params, batch))
            readable = x["weight"] > 0
            parts.append((x["logits"][readable], x["label"][readable]))
        logits, labels = map(np.concatenate, zip(*parts, strict=True))
        return Outcome.of_logits(logits, labels)


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
    several = getattr(source, "multi_label", False)
    return dataclasses.replace(recipe, classes=len(source.class_names), multi_label=several)


def _check_left_out(part: str, config: Any, fields: tuple[str, ...]) -> None:
    for field in fields:
        if getattr(config, field) != getattr(type(config), field):
            raise UserError(f"{part}.{field} follows from the checkpoint and the data; leave it out of the config")
