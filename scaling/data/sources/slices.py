"""A part of a split, written as in TensorFlow Datasets: `train[:80%]`, `train[80%:]`, `train[100:200]`.

Folders list their images class by class, so the part is taken from a fixed pseudo-random order; every call and every
seed gives the same images. `train[:80%,stratified]` is a part of every class, see `scaling.data.sources.stratified`;
`(train+test)[:100]` is a part of several splits together, see `scaling.data.sources.united`.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

from scaling.core.errors import UserError
from scaling.data.order import Order
from scaling.data.sources.base import Source, View

STRATIFIED = ",stratified"  # at the end of a part: of every class by itself, see `scaling.data.sources.stratified`
_SLICE = re.compile(rf"(.+)\[(\d+%?)?:(\d+%?)?({STRATIFIED})?\]")


def terms(split: str) -> list[str]:
    """The splits in a union: `train[:80%]+test` -> `train[:80%]`, `test`. A plus inside parentheses does not count."""
    parts, depth = [""], 0
    for character in split:
        depth += (character == "(") - (character == ")")
        if character == "+" and not depth:
            parts.append("")
        else:
            parts[-1] += character
    if len(parts) > 1 and "" in parts:
        raise UserError(f"split {split!r}: a name is missing next to +; write it as in train+test")
    return parts


def sliced(split: str) -> str:
    """The split that is sliced: `train[:80%]` -> `train`, `(train+test)[:100]` -> `train+test`; '' for a whole
    split.
    """
    match = _SLICE.fullmatch(split)
    whole = match[1] if match else ""
    return whole[1:-1] if whole.startswith("(") and whole.endswith(")") else whole


def written_cut(split: str) -> tuple[str, float, float] | None:
    """Unit, begin and end of a slice, `train[80%:]` -> `%`, 80, infinity; None for a whole split. The unit of a
    stratified slice ends in `,stratified`.
    """
    match = _SLICE.fullmatch(split)
    if not match:
        return None
    ends = [end for end in match.groups()[1:3] if end and end.rstrip("%") != "0"]  # 0 is the same in every unit
    units = {"%" if end.endswith("%") else "" for end in ends}
    unit = units.pop() if len(units) == 1 else ":".join(ends)
    start, stop = (float(end.rstrip("%")) if end else empty for end, empty in ((match[2], 0.0), (match[3], math.inf)))
    return unit + (match[4] or ""), start, stop


def is_stratified(split: str) -> bool:
    """Whether it is a part of every class that is written."""
    return bool((match := _SLICE.fullmatch(split)) and match[4])


class NoSplitError(UserError):
    """A split that a source does not have; `there` are the names of its splits."""

    def __init__(self, message: str, there: list[str]):
        super().__init__(message)
        self.there = there


class ShortSplitError(UserError):
    """A part that ends beyond its split; `split` is how it was written."""

    def __init__(self, message: str, split: str):
        super().__init__(message)
        self.split = split


def no_split(where: str, split: str, there: Iterable[str], only: str = "") -> NoSplitError:
    """The error for a split that a source does not have; for a source with one split it explains slices."""
    names = list(there)
    parts = f"; parts of it are written {names[0]}[:80%] and {names[0]}[80%:]" if len(names) == 1 else ""
    return NoSplitError(f"{where}: no split {split!r}; there is {only}{', '.join(names) or 'none'}{parts}", names)


class Slice(View):
    """The part of a source that `split` names.

    Attributes:
      whole, cut: the whole source, and begin and end of the part in the fixed order of its images.
      info: description of the whole source.

    Raises:
      UserError: the part is empty, or exceeds the source.
    """

    def __init__(self, source: Source, split: str):
        match = _SLICE.fullmatch(split)
        assert match, split
        total = len(source)
        self._start = 0 if match[2] is None else _position(match[2], total)
        stop = total if match[3] is None else _position(match[3], total)
        if max(self._start, stop) > total:
            raise ShortSplitError(f"split {split!r}: {match[1]} has only {total:,} images", split)
        if stop <= self._start:
            raise UserError(f"split {split!r} is empty; {match[1]} has {total} images")
        self.whole, self.cut = source, (self._start, stop)
        self._order, self._count = Order(total, 0), stop - self._start
        self.info = source.info

    @property
    def labels(self) -> Any:
        """Label of every image, if the whole source knows them; else None."""
        whole = getattr(self.whole, "labels", None)
        return None if whole is None else whole[[self._record(i) for i in range(self._count)]]

    def __len__(self) -> int:
        return self._count

    def _at(self, index: int) -> tuple[Source, int]:
        return self.whole, self._record(index)

    def _record(self, index: int) -> int:
        if not 0 <= index < self._count:
            raise IndexError(f"example {index} of {self._count}")
        return self._order.evaluation(self._start + index)


def _position(written: str, total: int) -> int:
    """`80%` or `100` as a number of images."""
    return round(total * int(written[:-1]) / 100) if written.endswith("%") else int(written)
