"""A part of a split, written as in TensorFlow Datasets: `train[:80%]`, `train[80%:]`, `train[100:200]`.

Folders list their images class by class, so the part is taken from a fixed pseudo-random order; every call and every
seed gives the same images.
"""

import re
from typing import Any

from scaling.data.order import Order
from scaling.data.source import Source
from scaling.errors import UserError

_SLICE = re.compile(r"(.+)\[(\d+%?)?:(\d+%?)?\]")


def split_name(split: str) -> str:
    """The split a part is taken of: `train[:80%]` -> `train`."""
    match = _SLICE.fullmatch(split)
    return match[1] if match else split


class Slice:
    """The part of a source that `split` names.

    Attributes:
      class_names, multi_label, statistics, band_names: of the whole source.

    Raises:
      UserError: the part is empty, or there are fewer images.
    """

    def __init__(self, source: Source, split: str):
        match = _SLICE.fullmatch(split)
        assert match, split
        total = len(source)
        self._start = 0 if match[2] is None else _position(match[2], total)
        stop = total if match[3] is None else _position(match[3], total)
        if max(self._start, stop) > total:
            raise UserError(f"split {split!r}: {match[1]} has only {total:,} images")
        if stop <= self._start:
            raise UserError(f"split {split!r} is empty; {match[1]} has {total} images")
        self._source, self._order, self._count = source, Order(total, 0), stop - self._start
        self.class_names = source.class_names
        self.multi_label = getattr(source, "multi_label", False)
        self.statistics = getattr(source, "statistics", None)
        self.band_names = getattr(source, "band_names", ())

    @property
    def labels(self) -> Any:
        """Of every image, where the whole source knows them; else None."""
        whole = getattr(self._source, "labels", None)
        return None if whole is None else whole[[self._record(i) for i in range(self._count)]]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        return self._source[self._record(index)]

    def state(self, index: int) -> bytes | None:
        """Of the example, where the whole source can say what has changed; else None."""
        state = getattr(self._source, "state", None)
        return state(self._record(index)) if state else None

    def name(self, index: int) -> str:
        """The file or record an example comes from."""
        return self._source.name(self._record(index))

    def _record(self, index: int) -> int:
        if not 0 <= index < self._count:
            raise IndexError(f"example {index} of {self._count}")
        return self._order.evaluation(self._start + index)


def _position(written: str, total: int) -> int:
    """`80%` or `100` as a number of images."""
    return round(total * int(written[:-1]) / 100) if written.endswith("%") else int(written)
