"""The interface of image sources, and the declaration of their content."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np

from scaling.data.images import pixels_of
from scaling.data.targets import Labels, Quadrilaterals, Target

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of every band


@dataclasses.dataclass(frozen=True)
class Info:
    """Properties of all images of a source, known without reading any.

    Attributes:
      classes: class names, indexed by `label`; () if images have no labels.
      multi_label: whether an image can have several classes.
      targets: targets of an image beside its label.
      bands: names of the bands, in order; () if unknown.
      units: units of the pixel values; empty if unknown.
      statistics: mean and standard deviation of the pixel values per band; None if they have to be measured.
    """

    classes: tuple[str, ...] = ()
    multi_label: bool = False
    targets: tuple[Target, ...] = ()
    bands: tuple[str, ...] = ()
    units: str = ""
    statistics: Statistics | None = None

    @property
    def label(self) -> Labels:
        """The label as a target; it has no classes if images have no labels."""
        return Labels(self.classes, self.multi_label)

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """All targets, the label first, even if images have none."""
        return (self.label, *self.targets)

    def target(self, name: str) -> Any:
        """The target of this name, or None."""
        return next((target for target in self.all_targets if target.name == name and target.classes), None)


class Example(TypedDict):
    """`image` [height, width, bands], uint8, uint16 or float32, and the targets in the source's `Info`, by name.

    `label` is an index into the classes, -1 if none, or an array of 0 and 1, one per class; see `scaling.data.targets`.
    """

    image: np.ndarray
    label: Any
    mask: NotRequired[np.ndarray]
    boxes: NotRequired[Quadrilaterals]


class Source(Protocol):
    """A random-access set of images. Picklable, safe to read from several threads, opens its files lazily.

    Reading an example raises `scaling.data.images.CorruptImage` if it cannot be used.
    """

    @property
    def info(self) -> Info: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def name(self, index: int, /) -> str:
        """The file or record an example comes from, for messages."""
        ...


class Stored:
    """Base of sources of image files or arrays. They define `info`, `name` and `stored`, or `kept` if an image has
    targets beside its label.
    """

    info: Info

    def stored(self, index: int) -> tuple[bytes | np.ndarray, Any]:
        """The stored image, an encoded file or an array, and its label."""
        kept = self.kept(index)
        return kept["image"], kept["label"]

    def kept(self, index: int) -> dict[str, Any]:
        """The example with the image as stored."""
        image, label = self.stored(index)
        return {"image": image, "label": label}

    def name(self, index: int) -> str:
        """The file or record an example comes from."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Example:
        kept: Any = self.kept(index)
        kept["image"] = pixels_of(kept["image"], self.name(index))
        return kept


class View(Stored):
    """Base of sources that show the images of other sources under other indices: files stay encoded, and names are
    unchanged.
    """

    def _at(self, index: int) -> tuple[Source, int]:
        """The source that has an example, and its index there. Raises IndexError."""
        raise NotImplementedError

    def _label(self, index: int, label: Any) -> Any:
        """The label of an example, given the one from its source."""
        return label

    def __getitem__(self, index: int) -> Example:
        source, record = self._at(index)
        example: Any = copy.copy(source[record])
        example["label"] = self._label(index, example["label"])
        return example

    def kept(self, index: int) -> dict[str, Any]:
        """The example with the image as its source stores it."""
        source, record = self._at(index)
        if not isinstance(source, Stored):
            example: Any = self[index]
            return {name: example[name] for name in ("image", "label", *(target.name for target in self.info.targets))}
        kept = source.kept(record)
        return {**kept, "label": self._label(index, kept["label"])}

    def state(self, index: int) -> bytes | None:
        """The state of the example if its source can detect changes; else None."""
        source, record = self._at(index)
        state = getattr(source, "state", None)
        return state(record) if state else None

    def name(self, index: int) -> str:
        """The file or record an example comes from."""
        source, record = self._at(index)
        return source.name(record)


class Picked(View):
    """Some images of a source.

    Attributes:
      whole, info: the source and what it declares.
      images: indices in it of the images taken, in order.
    """

    def __init__(self, source: Source, images: Sequence[int] | np.ndarray):
        self.whole, self.info, self.images = source, source.info, images

    @property
    def labels(self) -> Any:
        """Label of every image, if the whole source knows them; else None."""
        whole = getattr(self.whole, "labels", None)
        return None if whole is None else whole[self.images]

    def __len__(self) -> int:
        return len(self.images)

    def _at(self, index: int) -> tuple[Source, int]:
        if not 0 <= index < len(self.images):
            raise IndexError(f"example {index} of {len(self.images)}")
        return self.whole, int(self.images[index])
