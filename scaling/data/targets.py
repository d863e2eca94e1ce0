"""Targets of an image: a class or labels, a mask, boxes.

A target names its arrays in a batch, follows the image's geometry, and packs itself into arrays of a fixed shape. A
source declares its targets (`scaling.data.sources.base.Info`), and an objective selects some by the names of their
arrays (`abstract_batch`).
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import imagecodecs
import numpy as np

from scaling.core.errors import UserError
from scaling.data.geometry import Geometry
from scaling.data.images import CorruptImage

Arrays = dict[str, np.ndarray]

_NOT_TARGETS = ("image", "index", "id", "skipped", "weight")  # keys of a batch that are not targets


class Target(Protocol):
    """A kind of target that a source declares: a frozen dataclass.

    Attributes:
      name: key in an example.
      arrays: keys in a batch.
      follows: whether it moves with the pixels.
      classes: class names, which its numbers index.
    """

    name: ClassVar[str]
    arrays: ClassVar[tuple[str, ...]]
    follows: ClassVar[bool]

    @property
    def classes(self) -> tuple[str, ...]: ...

    def sized(self, arrays: Mapping[str, Any]) -> Self:
        """The target resized for arrays of these shapes, whose first axis is `batch`."""

    def check(self, value: Any, height: int, width: int) -> None:
        """Raises CorruptImage, without a name, for a value that cannot belong to an image of this size."""

    def moved(self, value: Any, geometry: Geometry) -> Any:
        """The value for the part of the image that a geometry takes."""

    def empty(self, rows: int, size: tuple[int, int]) -> Arrays:
        """The arrays of a batch, filled with the value for unknown."""

    def put(self, value: Any, arrays: Arrays, row: int) -> None:
        """Writes a value, moved, into a row of such arrays."""

    def packed(self, value: Any) -> Any:
        """The value as stored in a record by msgpack, without loss."""

    def unpacked(self, stored: Any) -> Any:
        """The value that `packed` was given."""


@dataclasses.dataclass(frozen=True)
class Labels:
    """One class per image, an index into `classes`, -1 if none; or 0 and 1 for each class [classes]."""

    classes: tuple[str, ...] = ()
    several: bool = False

    name: ClassVar[str] = "label"
    arrays: ClassVar[tuple[str, ...]] = ("label",)
    follows: ClassVar[bool] = False

    def sized(self, arrays: Mapping[str, Any]) -> Self:
        return self

    def check(self, value: Any, height: int, width: int) -> None:
        """Does nothing: missing labels are found where labels are needed; see `scaling.data.labels`."""

    def moved(self, value: Any, geometry: Geometry) -> Any:
        return value

    def empty(self, rows: int, size: tuple[int, int]) -> Arrays:
        shape = (len(self.classes),) if self.several else ()
        return {"label": np.full((rows, *shape), -1, np.int32)}

    def put(self, value: Any, arrays: Arrays, row: int) -> None:
        arrays["label"][row] = value

    def packed(self, value: Any) -> int | np.ndarray:
        return np.asarray(value, np.int32) if np.ndim(value) else int(value)

    def unpacked(self, stored: Any) -> Any:
        return stored


@dataclasses.dataclass(frozen=True)
class Masks:
    """A class for every pixel: integers [height, width], indices into `classes`, or `ignore` for unlabelled pixels.

    In a batch [rows, h, w] of `dtype`. Resized to the nearest pixel; `ignore` outside the image.
    """

    classes: tuple[str, ...]
    ignore: int = 255

    name: ClassVar[str] = "mask"
    arrays: ClassVar[tuple[str, ...]] = ("mask",)
    follows: ClassVar[bool] = True

    def __post_init__(self):
        if 0 <= self.ignore < len(self.classes):
            raise UserError(f"masks: the ignored value {self.ignore} is also class {self.classes[self.ignore]!r}")

    @property
    def dtype(self) -> np.dtype:
        """uint8, or int32 if that cannot hold all values."""
        return np.dtype(np.uint8 if 0 <= self.ignore < 256 and len(self.classes) <= 256 else np.int32)

    def sized(self, arrays: Mapping[str, Any]) -> Self:
        return self

    def check(self, value: np.ndarray, height: int, width: int) -> None:
        if value.shape != (height, width) or value.dtype.kind not in "ui":
            raise CorruptImage(
                "", f"its mask is {value.dtype} {list(value.shape)}, the image {height} x {width} pixels"
            )
        if wrong := foreign_labels(value, len(self.classes), self.ignore):
            raise CorruptImage(
                "",
                f"its mask has values beyond {len(self.classes)} classes and ignored {self.ignore}: {wrong}; "
                f"all of its labels: {label_histogram(value)}",
            )

    def moved(self, value: np.ndarray, geometry: Geometry) -> np.ndarray:
        out = np.empty(geometry.size, self.dtype)
        geometry.mask(value, out, self.ignore)
        return out

    def empty(self, rows: int, size: tuple[int, int]) -> Arrays:
        return {"mask": np.full((rows, *size), self.ignore, self.dtype)}

    def put(self, value: np.ndarray, arrays: Arrays, row: int) -> None:
        arrays["mask"][row] = value

    def packed(self, value: np.ndarray) -> bytes | np.ndarray:
        """PNG if it can hold all values."""
        value = np.ascontiguousarray(value, self.dtype)
        return bytes(imagecodecs.png_encode(value)) if self.dtype == np.uint8 else value

    def unpacked(self, stored: bytes | np.ndarray) -> np.ndarray:
        return imagecodecs.png_decode(stored) if isinstance(stored, bytes) else stored


def foreign_labels(labels: np.ndarray, classes: int, ignore: int) -> str:
    """The labels that are neither a class nor ignored, with their numbers of pixels, in words; empty if there are
    none.
    """
    wrong = (labels != ignore) & ((labels < 0) | (labels >= classes))
    if not wrong.any():
        return ""
    return label_histogram(labels[wrong], 3)


def label_histogram(labels: np.ndarray, most: int = 12) -> str:
    """The smallest `most` labels that occur, with their numbers of pixels, in words."""
    values, counts = np.unique(labels, return_counts=True)
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(f"{v} ({n:,} pixels)" for v, n in zip(values[:most], counts, strict=False)) + more


class Quadrilaterals(NamedTuple):
    """Objects of an image by their outlines, in any number.

    Attributes:
      corners: float32 [n, 4, 2] of (x, y) in pixels, in order around the outline; see `Geometry`.
      classes: int32 [n], indices into the classes of the target.
      difficult: bool [n].
    """

    corners: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray

    @classmethod
    def of(cls, corners: Any, classes: Any, difficult: Any = None) -> Self:
        """Quadrilaterals from array-likes, which may be empty; without `difficult`, none is difficult."""
        quadrilaterals = np.asarray(corners, np.float32).reshape(-1, 4, 2)
        difficult = np.zeros(len(quadrilaterals)) if difficult is None else difficult
        return cls(quadrilaterals, np.asarray(classes, np.int32).reshape(-1), np.asarray(difficult, bool).reshape(-1))

    def taken(self, which: Any) -> Self:
        """A selection of the objects."""
        return type(self)(*(part[which] for part in self))


@dataclasses.dataclass(frozen=True)
class Boxes:
    """Objects as `Quadrilaterals`; code that needs angles computes them.

    A crop keeps the boxes whose middle is in it, uncut. A batch has room for `most`:
    `boxes` [rows, most, 4, 2] float32, `box_class` [rows, most] int32 (-1 for padding), `box_difficult` and
    `box_valid` [rows, most] bool, and `box_overflow` [rows] int32, the number of boxes dropped.
    """

    classes: tuple[str, ...]
    most: int = 256

    name: ClassVar[str] = "boxes"
    arrays: ClassVar[tuple[str, ...]] = ("boxes", "box_class", "box_difficult", "box_valid", "box_overflow")
    follows: ClassVar[bool] = True

    def sized(self, arrays: Mapping[str, Any]) -> Self:
        rooms = {arrays[name].shape[1] for name in self.arrays[:-1] if name in arrays}
        if len(rooms) > 1:
            raise UserError(f"boxes: the objective takes {' and '.join(map(str, sorted(rooms)))} of an image at a time")
        return dataclasses.replace(self, most=rooms.pop()) if rooms else self

    def check(self, value: Quadrilaterals, height: int, width: int) -> None:
        corners, classes, difficult = value
        if corners.shape != (len(classes), 4, 2) or len(difficult) != len(classes):
            raise CorruptImage(
                "",
                f"its {len(classes)} boxes have corners {list(corners.shape)}, {len(difficult)} are difficult or not",
            )
        if not np.isfinite(corners).all():
            raise CorruptImage("", "it has boxes with corners that are not finite")
        if wrong := sorted({int(c) for c in classes if not 0 <= c < len(self.classes)}):
            raise CorruptImage("", f"it has boxes of class {wrong[0]}, beyond {len(self.classes)} classes")

    def moved(self, value: Quadrilaterals, geometry: Geometry) -> Quadrilaterals:
        corners = geometry.points(value.corners)
        if geometry.mirrors:
            corners = corners[:, [0, 3, 2, 1]]  # the first corner and the sense of rotation are kept
        return value._replace(corners=corners).taken(geometry.takes(value.corners.mean(1)))

    def empty(self, rows: int, size: tuple[int, int]) -> Arrays:
        shape = (rows, self.most)
        return {
            "boxes": np.zeros((*shape, 4, 2), np.float32),
            "box_class": np.full(shape, -1, np.int32),
            "box_difficult": np.zeros(shape, bool),
            "box_valid": np.zeros(shape, bool),
            "box_overflow": np.zeros(rows, np.int32),
        }

    def put(self, value: Quadrilaterals, arrays: Arrays, row: int) -> None:
        there = min(len(value.classes), self.most)
        for name, part in zip(self.arrays, value, strict=False):
            arrays[name][row, :there] = part[:there]
        arrays["box_valid"][row, :there] = True
        arrays["box_overflow"][row] = len(value.classes) - there

    def packed(self, value: Quadrilaterals) -> dict[str, np.ndarray]:
        return value._asdict()

    def unpacked(self, stored: Mapping[str, np.ndarray]) -> Quadrilaterals:
        return Quadrilaterals(**stored)


KINDS: dict[str, type[Any]] = {kind.name: kind for kind in (Masks, Boxes)}  # in addition to labels


def wanted(there: Sequence[Target], arrays: Mapping[str, Any], source: str) -> tuple[Target, ...]:
    """The targets of a source that an objective takes.

    Args:
      there: description of the source.
      arrays: arrays of a batch that the objective takes, by name, of any number of views; see `abstract_batch`.
      source: spec of the source, for messages.

    Raises:
      UserError: the source lacks one.
    """
    first = {first_view(name): array for name, array in arrays.items()}
    taken: dict[str, Target] = {}
    for name in first:
        target = next((target for target in there if name in target.arrays and target.classes), None)
        if target is not None:
            taken[target.name] = target.sized(first)
        elif name not in _NOT_TARGETS:
            has = ", ".join(target.name for target in there if target.classes) or "images alone"
            raise UserError(f"data.source={source}: it has no {name}, which this run needs; it has {has}")
    return tuple(taken.values())


def view_name(name: str, view: int) -> str:
    """The key of an array of a view in a batch; for the first view its plain name."""
    return f"{name}_{view}" if view else name


def first_view(key: str) -> str:
    """The name of an array, from its key in any view."""
    name, _, view = key.rpartition("_")
    return name if view.isdecimal() else key


def views_in(keys: Iterable[str]) -> int:
    """Number of views among the keys of a batch."""
    return 1 + max((int(key.rpartition("_")[2]) for key in keys if first_view(key) != key), default=0)
