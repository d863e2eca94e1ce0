"""Several splits as one, written as in TensorFlow Datasets: `train+test`, `train[:80%]+test`."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaling.core.errors import UserError
from scaling.data.sources.base import Info, Source, View
from scaling.data.sources.slices import Slice, sliced, terms, written_cut
from scaling.data.sources.stratified import Stratified


class United(View):
    """The images of several splits of one source, one split after another.

    Attributes:
      info: description that holds for every part. If classes differ, it has their union in alphabetical order, which
        labels index; unlabelled images keep -1. If statistics differ, it has none, and they are measured.

    Raises:
      UserError: parts share images, or differ in their bands or targets.
    """

    def __init__(self, parts: Sequence[Source], names: Sequence[str]):
        written = "+".join(names)
        if len(set(names)) < len(names):
            raise UserError(f"split {written!r} names a subset twice; name every subset once")
        from_where = [_place(part, name) for part, name in zip(parts, names, strict=True)]
        for (one, its), (other, of_other) in itertools.combinations(zip(names, from_where, strict=True), 2):
            if not _apart(its, of_other):
                raise UserError(f"split {written!r}: {one} and {other} share images; name every image once")
        self.parts = parts
        self._ends = np.cumsum([len(part) for part in parts])
        self.info = _common([part.info for part in parts], written)
        place = {name: label for label, name in enumerate(self.info.classes)}
        self._labels: list[np.ndarray] = []  # new label of each label of a part; empty if they are the same
        if any(part.info.classes not in ((), self.info.classes) for part in parts):
            self._labels = [np.array([place[name] for name in part.info.classes], np.int32) for part in parts]

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def labels(self) -> Any:
        """Label of every image, if all parts know them; else None."""
        whole = [getattr(part, "labels", None) for part in self.parts]
        if any(labels is None for labels in whole):
            return None
        return np.concatenate([self._united(part, labels) for part, labels in enumerate(whole)])

    def _at(self, index: int) -> tuple[Source, int]:
        part = self._part(index)
        return self.parts[part], index - int(self._ends[part - 1] if part else 0)

    def _label(self, index: int, label: Any) -> Any:
        return self._united(self._part(index), label) if self._labels else label

    def _part(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return int(np.searchsorted(self._ends, index, side="right"))

    def _united(self, part: int, labels: Any) -> Any:
        """Labels of a part as indices into the classes of the union; -1 stays."""
        if not self._labels or not len(self._labels[part]):
            return labels
        found = np.where(np.asarray(labels) < 0, -1, self._labels[part][labels])
        return found if np.ndim(labels) else int(found)


_ALIKE = {"bands": "band names", "units": "units", "multi_label": "multi label", "targets": "masks or boxes"}


def apart(sources: Mapping[str, Source]) -> bool:
    """Whether these splits of one source certainly share no image."""
    places = [_place(source, name) for name, source in sources.items()]
    return all(_apart(one, other) for one, other in itertools.combinations(places, 2))


def written_apart(one: str, other: str) -> bool:
    """Whether the names of two splits of one source imply that they share no image."""
    return _apart(_written(one), _written(other))


def _common(infos: Sequence[Info], written: str) -> Info:
    """The description that holds for all parts."""
    first = infos[0]
    for field, called in _ALIKE.items():
        if any(getattr(info, field) != getattr(first, field) for info in infos):
            raise UserError(f"split {written!r}: its subsets differ in {called}; use them one by one")
    known = list(dict.fromkeys(info.classes for info in infos if info.classes))
    if len(known) > 1 and first.multi_label:
        raise UserError(f"split {written!r}: its subsets have different labels; use them one by one")
    classes = known[0] if len(known) == 1 else tuple(sorted({name for names in known for name in names}))
    alike = all(info.statistics == first.statistics for info in infos)
    return dataclasses.replace(first, classes=classes, statistics=first.statistics if alike else None)


@dataclasses.dataclass(frozen=True)
class _Place:
    """The origin of the images of a part.

    Attributes:
      of: a split of the source, or the origins that are united.
      cuts: slices taken from it, one of another: unit, begin and end (exclusive).
    """

    of: "str | tuple[_Place, ...]"
    cuts: tuple[tuple[str, float, float], ...] = ()


def _place(source: Source, name: str) -> _Place:
    """The origin of the images of a source; `name` is the split it was opened with, used if the source has no
    `split`.
    """
    if isinstance(source, Slice):
        whole = _place(source.whole, name)
        return dataclasses.replace(whole, cuts=(*whole.cuts, ("images", *source.cut)))
    if isinstance(source, Stratified):
        whole = _place(source.whole, name)
        return dataclasses.replace(whole, cuts=(*whole.cuts, source.cut))
    if isinstance(source, United):
        return _Place(tuple(_place(part, name) for part in source.parts))
    if shards := getattr(source, "shards", ()):
        return _Place(tuple(_Place(file, (("record", start, stop),)) for file, start, stop in shards))
    return _written(getattr(source, "split", name))


def _written(split: str) -> _Place:
    """The origin that the name of a split describes; a split may have been prepared as a slice or a union."""
    parts = terms(split)
    if len(parts) > 1:
        return _Place(tuple(map(_written, parts)))
    whole, _, bracket = split.partition("[")
    if cut := written_cut(split):
        place = _written(sliced(split))
        return dataclasses.replace(place, cuts=(*place.cuts, cut))
    return _Place(whole, ((bracket, 0, math.inf),) if bracket else ())


def _apart(one: _Place, other: _Place) -> bool:
    """Whether two origins certainly share no image."""
    if one.of == other.of:
        for (unit, start, stop), (its_unit, its_start, its_stop) in zip(one.cuts, other.cuts, strict=False):
            if unit == its_unit and (stop <= its_start or its_stop <= start):
                return True
            if (unit, start, stop) != (its_unit, its_start, its_stop):
                break
    if isinstance(one.of, tuple):
        return all(_apart(part, other) for part in one.of)
    if isinstance(other.of, tuple):
        return all(_apart(one, part) for part in other.of)
    return one.of != other.of
