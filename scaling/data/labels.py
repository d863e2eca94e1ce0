"""Images that have no label: never trained on as a class, never scored as one."""

from collections.abc import Collection, Mapping

import numpy as np

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage
from scaling.data.sources.base import Source
from scaling.data.targets import Masks


def unlabelled(labels: np.ndarray) -> np.ndarray:
    """Whether each row lacks a label: [b], or [b, L] of 0 and 1 -> bool [b]."""
    return (labels if labels.ndim == 1 else labels.min(axis=1, initial=0)) < 0


def check_labels(source: Source, spec: str, split: str) -> None:
    """Raises UserError if a source that knows its labels without reading images has images without a label."""
    labels = getattr(source, "labels", None)
    if labels is not None and (missing := np.flatnonzero(unlabelled(labels))).size:
        raise no_label(spec, split, source.name(int(missing[0])), f"{missing.size:,} of {len(labels):,} images")


def require_labels(batch: Mapping[str, np.ndarray], source: Source, spec: str) -> None:
    """Raises UserError for a batch of the pipeline with an unlabelled image, padding aside."""
    missing = unlabelled(batch["label"]) & (batch.get("weight", np.ones(1)) > 0)
    if missing.any():
        raise UserError(_message(f"{spec}: an image has no label, {source.name(int(batch['id'][missing][0]))}"))


def check_masks(source: Source, spec: str, split: str) -> None:
    """Raises UserError if no pixel of a source with masks is labelled: a loss and a score of nothing. Reads images up
    to the first that has such a pixel.
    """
    target = source.info.target(Masks.name)
    assert isinstance(target, Masks)
    unreadable = 0
    for index in range(len(source)):
        try:
            if (source[index][Masks.name] != target.ignore).any():
                return
        except CorruptImage as error:
            unreadable, last = unreadable + 1, error
    if unreadable == len(source):
        raise UserError(f"{spec}, split {split}: no image is readable; the last is {last}")
    raise UserError(
        f"{spec}, split {split}: all pixels of its {len(source):,} masks have the ignored label {target.ignore}; label "
        "some, or declare another ignored label"
    )


def no_label(spec: str, split: str, first: str, count: str = "an image") -> UserError:
    """The error for images without a label."""
    verb = "have" if count != "an image" else "has"
    return UserError(_message(f"{spec}, split {split}: {count} {verb} no label, first {first}"))


def check_rows(labels: np.ndarray, where: str) -> None:
    """Raises UserError for labels of rows, [n] or [n, L], that a probe cannot take: missing ones, or a single class."""
    if (missing := np.flatnonzero(unlabelled(labels))).size:
        raise UserError(
            f"{where}: {missing.size:,} of {len(labels):,} images have no label (-1), first row {missing[0]}; leave "
            "them out"
        )
    if labels.ndim == 1:
        check_classes(np.unique(labels), where, len(labels))


def check_classes(classes: Collection[int] | np.ndarray, where: str, images: int) -> None:
    """Raises UserError if images with one label each all have the same label."""
    if len(classes) < 2:
        raise UserError(f"{where}: all {images} images have the same class; a score needs at least two classes")


def _message(what: str) -> str:
    return f"{what}; move unlabelled images out of the split, or into the folder of their class"
