"""A fine-tuning recipe, completed by the encoder and the images."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from typing import Any, cast

from scaling.core.config import FILES
from scaling.core.errors import UserError
from scaling.data.sources.base import Info, Source
from scaling.data.sources.registry import open_source
from scaling.data.sources.slices import NoSplitError, ShortSplitError, sliced
from scaling.models.config import ViTConfig
from scaling.models.vit import for_image_size
from scaling.objectives import TASKS, ObjectiveConfig
from scaling.tasks.base import TaskConfig
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig

# Fields of the model that a config may set.
_RECIPE = ("attention", "remat", "unroll", "window", "global_blocks", "window_padding", "relative")

_CALLED = {"label": "classes of images", "mask": "masks", "boxes": "boxes"}  # targets in messages
_SOURCES = {
    "mask": "images with masks, as pairs:DIR (a folder of images/ and masks/), loveda:DIR or potsdam:DIR",
    "boxes": "images with boxes, as dota:DIR, dior:DIR or yolo_obb:DIR",
}  # sources of the targets that few sources have


@contextlib.contextmanager
def of_own_source(c: FinetuneConfig, given: Collection[str]) -> Iterator[None]:
    """Context in which the error for a split of a source says what a source of the task needs, if this one does not
    have it, and where a part that exceeds the source was written, if that was the config and not the user.

    Args:
      c: the recipe.
      given: dotted paths of the fields that the user set.
    """
    try:
        yield
    except (NoSplitError, ShortSplitError) as e:
        split = e.there[0] if isinstance(e, NoSplitError) and e.there else sliced(getattr(e, "split", ""))
        if split:
            check_targets(open_source(c.data.source, split).info, c)
        if isinstance(e, NoSplitError):
            raise
        fields = {c.test_split: "test_split", c.data.split: "data.split"}
        field = fields.get(e.split, "data.source")
        if "data.source" not in given or field in given:
            raise
        file = FILES[c.task.name]
        raise UserError(
            f"{e}; that is the config's own {field}, for another source: take --config={file}:{c.data.source}, or set "
            "data.split and test_split"
        ) from e


def check_targets(info: Info, c: FinetuneConfig) -> None:
    """Raises UserError for a source whose images lack what the task learns from."""
    for name in task_of(c.task).takes:
        if name in _SOURCES and info.target(name) is None:
            has = " and ".join(_CALLED.get(target.name, target.name) for target in info.all_targets if target.classes)
            raise UserError(
                f"data.source={c.data.source}: has {f'{has}, but ' if has else ''}no {_CALLED[name]}, from which "
                f"{c.task.name} learns; give {_SOURCES[name]}"
            )


def encoder_for(encoder: ViTConfig, c: FinetuneConfig) -> ViTConfig:
    """The initial architecture of a recipe. Image sizes that it does not set are the encoder's; with windows or
    relative positions, tokens without a position are dropped, as in ViTDet.

    Raises:
      UserError: the encoder does not take such images.
    """
    resized = for_image_size(encoder, c.image_size, c.image_width) if c.image_size else encoder
    if encoder.relative and not c.model.relative:
        raise UserError("model.relative=False: the encoder was trained with relative positions; set it to True")
    if encoder.relative and resized.image_shape != encoder.image_shape:
        raise UserError(
            f"image_size={resized.sides}: the relative positions are those of {encoder.sides}; leave it out"
        )
    if not (c.model.window or c.model.relative):
        return resized
    return dataclasses.replace(resized, class_token=False, registers=0)


def with_encoder(c: FinetuneConfig, encoder: ViTConfig, source: Source) -> FinetuneConfig:
    """A recipe with everything that follows from the encoder's architecture and from the training images.

    Raises:
      UserError: fields that do not belong in a recipe.
    """
    if (c.steps, c.optimizer.warmup) != (FinetuneConfig.steps, OptimizerConfig.warmup):
        raise UserError("steps and optimizer.warmup follow from epochs and warmup_epochs; leave them out")
    per_epoch = len(source) / c.batch_size
    steps, warmup = max(round(c.epochs * per_epoch), 1), round(c.warmup_epochs * per_epoch)
    optimizer = dataclasses.replace(c.optimizer, warmup=warmup)
    model, task = _model(encoder, c.model), task_of(c.task).with_data(source.info)
    return dataclasses.replace(c, model=model, task=task, steps=steps, optimizer=optimizer)


def _model(encoder: ViTConfig, recipe: ViTConfig) -> ViTConfig:
    """The encoder's architecture, with the recipe's settings of how it is computed.

    Raises:
      UserError: the recipe sets a field that follows from the checkpoint.
    """
    _check_left_out("model", recipe, tuple(f.name for f in dataclasses.fields(ViTConfig) if f.name not in _RECIPE))
    model = dataclasses.replace(encoder, **{field: getattr(recipe, field) for field in _RECIPE})
    model = dataclasses.replace(model, global_blocks=model.attending_to_all) if model.window else model
    model.check()
    return model


def task_of(recipe: ObjectiveConfig) -> TaskConfig:
    """The task, without fields that follow from the data."""
    if recipe.name not in TASKS:
        raise UserError(f"task.name={recipe.name!r}: what has labels can be fine-tuned: {', '.join(TASKS)}")
    task = cast(TaskConfig, recipe)
    _check_left_out("task", task, task.of_data)
    return task


def _check_left_out(part: str, config: Any, fields: tuple[str, ...]) -> None:
    for field in fields:
        if getattr(config, field) != getattr(type(config), field):
            raise UserError(f"{part}.{field} follows from the checkpoint and the data; leave it out of the config")
