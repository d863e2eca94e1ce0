"""The splits of a recipe, opened, and checked for what its task learns from and for the independence of the test."""

from typing import NamedTuple

from scaling.core.errors import UserError
from scaling.data.config import check_source, open_sources
from scaling.data.labels import check_labels, check_masks
from scaling.data.sources.base import Source
from scaling.data.sources.registry import open_source, same_source
from scaling.data.sources.united import apart
from scaling.data.targets import Boxes, Masks
from scaling.tasks.resolving import check_targets, task_of
from scaling.training.config import FinetuneConfig


class LabelledSplits(NamedTuple):
    """Images for training, for monitoring, and for the final score."""

    train: Source
    held_out: Source
    test: Source


def open_splits(c: FinetuneConfig) -> LabelledSplits:
    """The splits of a recipe.

    Raises:
      UserError: no such data, or a best step that may be chosen by test images.
    """
    splits = LabelledSplits(*open_sources(c.data), open_source(c.data.source, c.test_split))
    if c.checkpoint.best and same_source(c.data.eval_source or c.data.source, c.data.source):
        _check_choice(c, splits)
    return splits


def _check_choice(c: FinetuneConfig, splits: LabelledSplits) -> None:
    """Raises UserError where the images that the best step is chosen by may be among those of the test split."""
    split = c.data.eval_split or c.data.split
    if split == c.test_split or not apart({split: splits.held_out, c.test_split: splits.test}):
        where = f"data.eval_split={split}:" if c.data.eval_split else f"data.split={split}: its held-out part"
        raise UserError(
            f"{where} may have images of test_split={c.test_split}, which checkpoint.best={c.checkpoint.best} must "
            "not use to choose the best step; set data.eval_split to a split without test images"
        )


def check_splits(splits: LabelledSplits, c: FinetuneConfig, bands: int) -> None:
    """Raises UserError for images that do not fit an encoder of so many bands, or without what the task learns from."""
    data, takes = c.data, task_of(c.task).takes
    check_targets(splits.train.info, c)
    opened = (
        *((splits.train, (data.source, data.split)), (splits.held_out, data.evaluated)),
        (splits.test, (data.source, c.test_split)),
    )
    for source, where in {id(each[0]): each for each in opened}.values():
        check_source(source, bands, data, *where)
        if "label" in takes:
            check_labels(source, *where)
        for name in takes:
            _check_target(source, splits.train, name, data.source)
        if Masks.name in takes:
            check_masks(source, *where)


def _check_target(source: Source, train: Source, name: str, spec: str) -> None:
    """Raises UserError for a split that lacks a target, or whose classes differ from those of the training split."""
    target = source.info.target(name)
    least = 1 if name == Boxes.name else 2  # the background is a class of its own
    if target and len(target.classes) == 1 < least:
        raise UserError(
            f"{spec}: all images have the same class, {target.classes[0]}; a score needs at least two classes"
        )
    if target is None or len(target.classes) < least or target != train.info.target(name):
        raise UserError(f"{spec} has splits without {name.removesuffix('s')}s, or with other classes than the training")
