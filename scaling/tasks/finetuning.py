"""Fine-tuning: a pretrained encoder, whole or cut, and the head of a task trained together on labelled images.

The run, its checkpoints and its guarantees are those of pretraining (`scaling.training.open_run`). The result is scored
on a test split that was not used for any choice: the parameters are those of the last step or, with
`early_stopping`, of the best one by held-out images.
"""

import dataclasses
import functools
import logging
from collections.abc import Collection
from typing import Any, cast

import jax
import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.core.paths import BEST, check_folder
from scaling.data.sources.default_splits import default_splits
from scaling.data.spot_checks import beyond_eight_bits, few_pixels, in_other_units
from scaling.data.statistics import band_statistics
from scaling.encoders.bands import bands_of, training_dtype
from scaling.encoders.encoder import Encoder
from scaling.models.vit import abstract_vit, at_image_size, with_relative_positions
from scaling.objectives import Batch
from scaling.parallel import hosts
from scaling.parallel.claim import Claim
from scaling.parallel.mesh import batch_sharding, replicated
from scaling.tasks.anchored import warn_of_unreached
from scaling.tasks.base import Scores, Task, TaskConfig
from scaling.tasks.classification_run import CLASSES, write_classes
from scaling.tasks.labelled_splits import check_splits, open_splits
from scaling.tasks.objects import ObjectTest, tiling_of
from scaling.tasks.pixels import PixelTest
from scaling.tasks.resolving import encoder_for, with_encoder
from scaling.training.best import best_step
from scaling.training.config import FinetuneConfig
from scaling.training.loop import Stopped, Trained
from scaling.training.open_run import OpenRun, Watch, open_mesh
from scaling.training.prefetch import evaluation_feed
from scaling.training.reading import opened_to_read
from scaling.training.resume import restore_newest
from scaling.training.state import State
from scaling.training.step import TrainStep
from scaling.training.workdir import announced, in_files, nowhere

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, repr=False)
class Finetuned:
    """The result of fine-tuning.

    Attributes:
      config: the recipe with everything that follows from the encoder and the data.
      images: number of training images.
      trained: encoder and head; with `early_stopping` the state is that of the best step.
      task: task of the training.
      predictions: predictions for the test split beside the truth: `Scores`, of a classification `Predictions`.
      path: folder with the checkpoint that was scored: the working directory, with `early_stopping` its folder `best`.
      names: names of the test images, in the order of the predictions of a classification; empty otherwise, and where
        several processes share the images.
    """

    config: FinetuneConfig
    images: int
    trained: Trained
    task: Task
    predictions: Any
    path: epath.Path
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        said = ", ".join(f"{name} {score:.1%}" for name, score in self.scores().items())
        where = f"{self.config.data.source}, split {self.config.test_split}"
        return f"Finetuned({self.config.task.name} on {where}: {said})"

    def scores(self) -> dict[str, float]:
        """Every score that applies, in [0, 1]."""
        scores: dict[str, float] = self.predictions.scores()
        return scores

    def summary(self) -> str:
        """The scores in words."""
        return self.task.summary(self.predictions, self.config.data.source, self.images)


def finetune(
    encoder: Encoder,
    c: FinetuneConfig,
    workdir: epath.PathLike,
    change: Collection[str] = (),
    watch: Watch = in_files,
) -> Finetuned | Stopped:
    """Trains an encoder and a head on labelled images, resuming in a working directory, and scores them on the test
    split. For arguments and errors see `Finetuning` and `scaling.training.pretraining.pretrain`.
    """
    folder = check_folder("workdir", workdir, checkpoints=True)
    return Finetuning(encoder, c).run(folder, change, watch)


class Finetuning:
    """Fine-tuning of one encoder on one data set by one recipe, checked before any training.

    Args:
      encoder: source of the initial parameters, and of the normalisation if `c.normalise` is `training`.
      c: the recipe.

    Attributes:
      config: the recipe with everything that follows from the encoder and the data.
      source, held_out, test: data for training, monitoring and the final score.

    Raises:
      UserError: fields that do not belong in a recipe, data that does not fit the encoder or has no labels, or a best
        step that may be chosen by test images.
    """

    def __init__(self, encoder: Encoder, c: FinetuneConfig):
        c.check()
        train, test = default_splits(c.data.source, c.data.split, c.test_split)
        c = dataclasses.replace(c, data=dataclasses.replace(c.data, split=train), test_split=test)
        encoder = _adapted(encoder, c)
        self._params, self._beyond = encoder.params, ""
        self.source, self.held_out, self.test = splits = open_splits(c)
        data, own = c.data, bool(c.data.mean)
        bands = bands_of(encoder, self.source, data.source, data.bands, statistics=own, option="data.bands")
        c = dataclasses.replace(c, data=dataclasses.replace(data, bands=bands))
        check_splits(splits, c, encoder.config.bands)
        self.config = self._resolved(encoder, c)
        self.config.check()
        if c.test_stride > min(encoder.config.image_shape):
            raise UserError(f"test_stride={c.test_stride}: must not skip pixels; windows have {encoder.config.sides}")
        self._run = OpenRun(self.config, open_mesh(c), self.source, self.held_out, self._begin)
        if c.test_stride and not (self._task.pixel_counts or self._task.detections):
            raise UserError(f"test_stride={c.test_stride}: {c.task.name} has no windows; leave it out")
        if self._task.detections and c.tests_whole_images:
            tiling_of(self.config, c.test_stride)
        if self._task.detections:
            warn_of_unreached(self.source, self.config)

    def _resolved(self, encoder: Encoder, c: FinetuneConfig) -> FinetuneConfig:
        if c.encoder not in ("", encoder.identity):
            raise UserError("encoder follows from the checkpoint; leave it out")
        c, data = with_encoder(c, encoder.config, self.source), c.data
        if not data.mean:
            own = c.normalise == "source"
            mean, std = band_statistics(self.source, data) if own else (encoder.train.data.mean, encoder.train.data.std)
            if mean and not own:
                pixels = few_pixels(self.source, data.bands, len(mean))
                self._beyond = beyond_eight_bits(pixels, mean, std, training_dtype(encoder))
                if units := self._beyond or in_other_units(pixels, mean, std):
                    log.warning("%s, split %s: %s; if they are, set normalise=source", data.source, data.split, units)
            if not mean:
                raise UserError("the checkpoint does not say how its images are normalised; set normalise=source")
            data = dataclasses.replace(data, mean=mean, std=std)
        return dataclasses.replace(c, data=data, encoder=encoder.identity)

    def run(self, workdir: epath.PathLike, change: Collection[str] = (), watch: Watch = nowhere) -> Finetuned | Stopped:
        """Trains from the newest checkpoint of a working directory, or from the encoder, to the end.

        Args:
          workdir: folder of the checkpoints.
          change: see `scaling.training.pretraining.pretrain`.
          watch: opener of the writers, see `scaling.training.workdir`.

        Raises:
          UserError: the working directory belongs to another run, or another process trains in it.
          TrainingError: the training diverged, in its last step too.
        """
        self._check_units(epath.Path(workdir))
        with Claim(workdir) as claim:
            outcome = self._run.train(epath.Path(workdir), claim, watch, change)
            if hosts.is_first() and "label" in cast(TaskConfig, self.config.task).takes:
                write_classes(epath.Path(workdir) / CLASSES, self.source.info.classes)
        if isinstance(outcome, Stopped):
            log.info("fine-tuning was %s", outcome)
            return outcome
        path = epath.Path(workdir)
        if self.config.early_stopping:
            outcome, path = dataclasses.replace(outcome, state=self._best(path)), path / BEST
        measured, names = self._measure(outcome.state)
        return Finetuned(self.config, len(self.source), outcome, self._task, measured, path, tuple(names))

    def rehearse(self, workdir: epath.PathLike, change: Collection[str] = (), watch: Watch = announced) -> None:
        """Makes all checks that `run` makes before its first step, and announces the run; for arguments and errors
        see `run`.
        """
        self._check_units(epath.Path(workdir))
        self._run.rehearse(epath.Path(workdir), watch, change)

    def _check_units(self, workdir: epath.Path) -> None:
        """Raises UserError for a new run on images that are certainly in other units. An old one resumes: such runs
        were not refused at first.
        """
        if not self._beyond:
            return
        if (workdir / "checkpoints").is_dir():
            with opened_to_read(workdir) as checkpoints:
                if checkpoints.steps():
                    return
        data = self.config.data
        raise UserError(f"{data.source}, split {data.split}: {self._beyond}; set normalise=source")

    def _begin(self, train_step: TrainStep) -> State:
        """The encoder as read, and a new head."""
        encoder = with_relative_positions(self._params, self.config.model)
        params = {"encoder": encoder, "head": self._task.init_head(self.config.seed)}
        state: State = train_step.start(jax.device_put(params, train_step.shardings.params))
        return state

    def _best(self, workdir: epath.Path) -> State:
        """The state of the best step that was kept."""
        with opened_to_read(workdir / BEST) as checkpoints:
            step = best_step(workdir, self.config.checkpoint.best)
            if step is None or step not in checkpoints.steps():
                raise UserError(
                    f"{workdir / BEST}: has no checkpoint that was chosen by {self.config.checkpoint.best}; set "
                    "early_stopping=0 to score the last step"
                )
            log.info("scored with the parameters of step %s, the best by %s", f"{step:,}", self.config.checkpoint.best)
            return restore_newest(checkpoints, self._run.train_step, step)

    @property
    def _task(self) -> Task:
        return cast(Task, self._run.train_step.objective)

    def _measure(self, state: State) -> tuple[Scores, list[str]]:
        """Predictions of encoder and head for every readable image of the test split, and see `Finetuned.names`."""
        if self._task.pixel_counts and self.config.tests_whole_images:
            return self._task.predictions(self._pixels.counts(state)), []
        if self._task.detections:
            return self._task.predictions(self._objects.rows(state)), []
        c, train_step, task = self.config, self._run.train_step, self._task

        def predict(params: Any, extra: dict[str, Any], batch: Batch) -> Batch:
            return {**task.predict(params, extra, batch), "weight": batch["weight"]}

        formats = train_step.formats
        inputs = formats.params, train_step.beside(formats), batch_sharding(train_step.mesh)
        predict_all = train_step.compiled(predict, inputs, replicated(train_step.mesh))
        data = dataclasses.replace(c.data, eval_split=c.test_split, eval_examples=0)
        parts: list[dict[str, np.ndarray]] = []
        measured, arrays = dataclasses.replace(c, data=data), {**train_step.arrays, "weight": None}
        names: list[str] = []
        for host, batch in evaluation_feed(self.test, measured, train_step.mesh, arrays):
            x = jax.device_get(predict_all(state.params, train_step.beside(state), batch))
            readable = x.pop("weight") > 0
            parts.append({name: rows[readable] for name, rows in x.items()})
            if jax.process_count() == 1:
                names += [self.test.name(int(i)) for i in host["id"][host["weight"] > 0]]
        return task.predictions({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}), names

    def draw(self, state: State, folder: epath.Path) -> list[epath.Path]:
        """Pictures of a few test images, in segmentation and detection; see `PixelTest.draw`."""
        if self._task.detections:
            return self._objects.draw(state, folder)
        return self._pixels.draw(state, folder) if self._task.pixel_logits else []

    @functools.cached_property
    def _objects(self) -> ObjectTest:
        return ObjectTest(self.test, self.config, self._run.train_step)

    @functools.cached_property
    def _pixels(self) -> PixelTest:
        return PixelTest(self.test, self.config, self._run.train_step)


def _adapted(encoder: Encoder, c: FinetuneConfig) -> Encoder:
    """The initial encoder: adapted to the recipe's image size, and without other tokens if it uses windows."""
    config = encoder_for(encoder.config, c)
    if config == encoder.config:
        return encoder
    params, _ = at_image_size(encoder.params, encoder.config, *config.image_shape)
    params = {group: x for group, x in params.items() if group in abstract_vit(config)[0]}
    return dataclasses.replace(encoder, params=params, config=config, whole=encoder.identity)
