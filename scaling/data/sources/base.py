"""What a source of images is, and what it declares."""

import copy
import dataclasses
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np

from scaling.data.images import pixels_of
from scaling.data.targets import Labels, Quadrilaterals, Target

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of every band


@dataclasses.dataclass(frozen=True)
class Info:
    """What is known of all images of a source without reading any.

    Attributes:
      classes: names of what `label` counts; () where images have no labels.
      multi_label: whether an image has any number of the classes.
      targets: what belongs to an image beside its label.
      bands: names of the bands, in order; () where they are not known.
      units: of the pixel values; empty where they are not known.
      statistics: of the pixel values; None where they have to be measured.
    """

    classes: tuple[str, ...] = ()
    multi_label: bool = False
    targets: tuple[Target, ...] = ()
    bands: tuple[str, ...] = ()
    units: str = ""
    statistics: Statistics | None = None

    @property
    def label(self) -> Labels:
        """The label as a target; without classes where there is none."""
        return Labels(self.classes, self.multi_label)

    @property
    def all_targets(self) -> tuple[Target, ...]:
        """The label first, whether there is one or not."""
        return (self.label, *self.targets)

    def target(self, name: str) -> Any:
        """One of them by its name; None where there is none."""
        return next((target for target in self.all_targets if target.name == name and target.classes), None)


class Example(TypedDict):
    """`image` [height, width, bands], uint8, uint16 or float32, and what the `Info` of its source has, by name.

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
    """Base of the sources that keep image files or arrays: `stored` is what they add to a name and an `info`; `kept`,
    where more than a label belongs to an image.
    """

    info: Info

    def stored(self, index: int) -> tuple[bytes | np.ndarray, Any]:
        """The image as it is kept, an encoded file or an array, and its label."""
        kept = self.kept(index)
        return kept["image"], kept["label"]

    def kept(self, index: int) -> dict[str, Any]:
        """The example, but with the image as it is kept."""
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
    """Base of what shows the images of other sources, under other numbers: files stay encoded, names stay theirs."""

    def _at(self, index: int) -> tuple[Source, int]:
        """The source that has an example, and its number there. Raises IndexError."""
        raise NotImplementedError

    def _label(self, index: int, label: Any) -> Any:
        """The label of an example, from the one that its source gives it."""
        return label

    def __getitem__(self, index: int) -> Example:
        source, record = self._at(index)
        example: Any = copy.copy(source[record])
        example["label"] = self._label(index, example["label"])
        return example

    def kept(self, index: int) -> dict[str, Any]:
        """The example with the image as its source keeps it; of a source of arrays, the array."""
        source, record = self._at(index)
        if not isinstance(source, Stored):
            example: Any = self[index]
            return {name: example[name] for name in ("image", "label", *(target.name for target in self.info.targets))}
        kept = source.kept(record)
        return {**kept, "label": self._label(index, kept["label"])}

    def state(self, index: int) -> bytes | None:
        """Of the example, where its source can say what has changed; else None."""
        source, record = self._at(index)
        state = getattr(source, "state", None)
        return state(record) if state else None

    def name(self, index: int) -> str:
        """The file or record an example comes from."""
        source, record = self._at(index)
        return source.name(record)
