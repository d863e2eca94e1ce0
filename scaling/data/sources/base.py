"""What a source of images is."""

from typing import Any, Protocol, TypedDict

import numpy as np

from scaling.data.images import pixels_of


class Example(TypedDict):
    """`image` [height, width, bands], uint8, uint16 or float32; `label` index into `class_names`, -1 if none.

    Of a source whose attribute `multi_label` is True, `label` is an array of 0 and 1, one per name in `class_names`.
    """

    image: np.ndarray
    label: Any


class Source(Protocol):
    """A random-access set of images. Picklable, safe to read from several threads, opens its files lazily.

    Reading an example raises `scaling.data.images.CorruptImage` if it cannot be used.
    """

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...

    def name(self, index: int, /) -> str:
        """The file or record an example comes from, for messages."""
        ...


def label_shape(source: Source) -> tuple[int, ...]:
    """Shape of one label: () for an index, (classes,) for an array of 0 and 1."""
    return (len(source.class_names),) if getattr(source, "multi_label", False) else ()


class Stored:
    """Base of the sources that keep image files or arrays: `stored` is what they add to a name."""

    def stored(self, index: int) -> tuple[bytes | np.ndarray, Any]:
        """The image as it is kept, an encoded file or an array, and its label."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """The file or record an example comes from."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Example:
        image, label = self.stored(index)
        return {"image": pixels_of(image, self.name(index)), "label": label}


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
        example = source[record]
        return {"image": example["image"], "label": self._label(index, example["label"])}

    def stored(self, index: int) -> tuple[bytes | np.ndarray, Any]:
        """The image as its source keeps it, of a source of arrays the array; and the label."""
        source, record = self._at(index)
        if not isinstance(source, Stored):
            example = self[index]
            return example["image"], example["label"]
        image, label = source.stored(record)
        return image, self._label(index, label)

    def state(self, index: int) -> bytes | None:
        """Of the example, where its source can say what has changed; else None."""
        source, record = self._at(index)
        state = getattr(source, "state", None)
        return state(record) if state else None

    def name(self, index: int) -> str:
        """The file or record an example comes from."""
        source, record = self._at(index)
        return source.name(record)
