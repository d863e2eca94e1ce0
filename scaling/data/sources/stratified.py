"""A part of every class of a split, `train[:80%,stratified]` and `train[80%:,stratified]`.

Which images are in a part depends on their names alone: those of a class are put in the order of a hash of their names
(highest random weight; Thaler and Ravishankar, 1998), and the part is cut from that. The names are without the folders
that enclose all images, so that a folder, the folder around it and an archive of it give the same parts. The order of
the files, other classes and the machine play no part, and a new image moves at most one other of its class to the part
beside it.
"""

import hashlib
import itertools

import numpy as np

from scaling.core.errors import UserError
from scaling.data.sources.base import Picked, Source
from scaling.data.sources.slices import sliced, written_cut


class Stratified(Picked):
    """The part of every class that `split` names; a class of two images or more is in both sides of every cut.

    Attributes:
      whole, info: the source and what it declares.
      cut: unit, begin and end of the part, see `scaling.data.sources.slices.written_cut`.

    Raises:
      UserError: a part that is not in percent or is empty, or images that do not have one class each.
    """

    def __init__(self, source: Source, split: str):
        cut, labels = written_cut(split), class_labels(source)
        assert cut, split
        unit, start, stop = cut
        if not unit.startswith("%,") and (start, stop) != (0, np.inf):
            raise UserError(
                f"split {split!r}: a stratified subset must be in percent, as in {sliced(split)}[:80%,stratified]"
            )
        if max(start, 0 if stop == np.inf else stop) > 100:
            raise UserError(f"split {split!r}: a subset must end at 100% at most")
        if labels is None:
            raise UserError(
                f"split {split!r}: stratified needs a class of each image that is known without reading it; take a "
                f"subset of all images as {split.replace(',stratified', '')}"
            )
        order = _by_name(source, labels >= 0)
        parts = [_part(order[labels[order] == label], start, stop) for label in np.unique(labels)]
        super().__init__(source, np.sort(np.concatenate(parts)))
        self.cut, self._all_labels = cut, labels
        if not len(self.images):
            raise UserError(f"split {split!r} is empty; {sliced(split)} has {len(source):,} images")

    @property
    def stored_labels(self) -> np.ndarray:
        """The class of every image, -1 where it has none."""
        return self._all_labels[self.images]


def class_labels(source: Source) -> np.ndarray | None:
    """The class of every image [N], -1 where it has none; None where images do not have one each, or it is not known
    without decoding them.
    """
    if source.info.multi_label or source.info.targets or not source.info.classes:
        return None
    labels: np.ndarray | None = getattr(source, "labels", None)
    return getattr(source, "stored_labels", None) if labels is None else labels


def _by_name(source: Source, labelled: np.ndarray) -> np.ndarray:
    """All images in the order of a hash of their names; folders that enclose all labelled ones are left out."""
    paths = [source.name(i).split("/") for i in range(len(source))]
    of_labelled = [paths[i][:-1] for i in np.flatnonzero(labelled)]
    first, last = min(of_labelled, default=[]), max(of_labelled, default=[])
    enclosing = [one for one, _ in itertools.takewhile(lambda both: both[0] == both[1], zip(first, last, strict=False))]
    if all(folders == enclosing for folders in of_labelled):
        enclosing = enclosing[:-1]  # the folder of the only class
    depth = len(enclosing)
    names = ["/".join(path[depth:] if path[:depth] == enclosing else path) for path in paths]
    hashes = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
    return np.array(sorted(range(len(names)), key=lambda i: (hashes[i], names[i])), np.int64)


def _part(images: np.ndarray, start: float, stop: float) -> np.ndarray:
    """The part between two percentages of images in order; each side of a cut has one of them where there are two."""

    def place(percent: float) -> int:
        total = len(images)
        if percent <= 0 or percent >= 100:
            return 0 if percent <= 0 else total
        near = int(np.floor(total * percent / 100 + 0.5))
        return min(max(near, 1), total - 1) if total > 1 else near

    return images[place(start) : place(stop)]
