"""Default splits for training and for scoring."""

import logging
from collections.abc import Sequence

import numpy as np

from scaling.core.errors import UserError
from scaling.data.labels import check_classes
from scaling.data.sources.registry import open_source
from scaling.data.sources.slices import STRATIFIED, NoSplitError
from scaling.data.sources.stratified import Stratified, class_labels
from scaling.data.sources.united import apart, written_apart

log = logging.getLogger(__name__)

TRAIN, TEST = "train", "test"  # default splits to learn from and to score
_LEARNED, _SCORED = f"{TRAIN}[:80%]", f"{TRAIN}[80%:]"
_NAMED = 20  # classes that are named one by one at most


def default_splits(spec: str, train: str, test: str) -> tuple[str, str]:
    """The splits to learn from and to score: those given or, by default, if a source has only `train` (as class folders
    do), four fifths and one fifth of it, of every class where that is known, always the same. The choice is logged, and
    a warning if the splits may share images.

    Raises:
      UserError: see `open_source`.
    """
    if (train, test) != (TRAIN, TEST):
        if not written_apart(train, test) and (
            train == test or not apart({split: open_source(spec, split) for split in (train, test)})
        ):
            log.warning(
                "%s: images of %s are scored that are also in %s: the score is not that of unseen images; name splits "
                "that share no images, such as %s and %s",
                spec,
                test,
                train,
                _LEARNED,
                _SCORED,
            )
        return train, test
    try:
        open_source(spec, test)
    except NoSplitError as e:
        if e.there != [TRAIN]:
            raise
        return _parted(spec)
    return train, test


def _parted(spec: str) -> tuple[str, str]:
    """Four fifths and one fifth of `train`; says how many images of which class are in each."""
    if (labels := class_labels(whole := open_source(spec, TRAIN))) is None:
        splits, counts = (_LEARNED, _SCORED), ""
    else:
        _check_parted(spec, np.asarray(labels))
        splits = f"{_LEARNED[:-1]}{STRATIFIED}]", f"{_SCORED[:-1]}{STRATIFIED}]"
        learned, scored = (Stratified(whole, split).stored_labels for split in splits)
        counts = f": {_counted(learned, scored, whole.info.classes)}"
    said = "%s has no split test: %s is learned from, %s is scored (always the same)%s"
    log.info(said, spec, *splits, counts)
    if labels is not None and (lone := _lone(np.asarray(labels), whole.info.classes)):
        log.warning(
            "%s: only one image of %s: these classes are not scored, which needs two; the scores are of %d of %d "
            "classes",
            spec,
            ", ".join(lone[:_NAMED]),
            len(whole.info.classes) - len(lone),
            len(whole.info.classes),
        )
    return splits


def _lone(labels: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The classes with a single image."""
    counts = np.bincount(labels[labels >= 0], minlength=len(classes))
    return [name for name, count in zip(classes, counts, strict=True) if count == 1]


def _check_parted(spec: str, labels: np.ndarray) -> None:
    """Raises UserError where no class has images both to learn from and to score."""
    counts = np.bincount(labels[labels >= 0])
    check_classes(np.flatnonzero(counts), spec, len(labels))
    if counts.max() < 2:
        raise UserError(
            f"{spec}: no class has more than one image, so there is none to score; give at least two images of every "
            "class (five for an 80 % training split), or name the splits"
        )


def _counted(learned: np.ndarray, scored: np.ndarray, classes: Sequence[str]) -> str:
    """Message with the number of images in two parts, in total and per class, and the classes that only one of them
    has.
    """
    one, other = (np.bincount(labels[labels >= 0], minlength=len(classes)) for labels in (learned, scored))
    said = f"{len(learned):,} and {len(scored):,} images"
    if len(classes) <= _NAMED:
        each = ", ".join(f"{name} {a:,} + {b:,}" for name, a, b in zip(classes, one, other, strict=True))
    else:
        each = (
            f"{one.min():,} to {one.max():,} and {other.min():,} to {other.max():,} of each of {len(classes):,} classes"
        )
    lone = [name for name, a, b in zip(classes, one, other, strict=True) if not (a and b)]
    return f"{said} ({each})" + (f"; too few to be in both: {', '.join(lone[:_NAMED])}" if lone else "")
