"""What the labels of a map stand for, and how they are shown."""

import dataclasses
import functools

import numpy as np
from etils import epath

from scaling.core.canvas import colour
from scaling.core.files import write_csv

NOT_SEEN = "no data"  # what the ignored label is called in a table of classes


@dataclasses.dataclass(frozen=True)
class Legend:
    """Classes and their colours.

    Attributes:
      classes: names, in the order of the labels from 0.
      ignored: the label of pixels of which no class is known, as the truth has it.
    """

    classes: tuple[str, ...]
    ignored: int = 255

    @property
    def dtype(self) -> np.dtype:
        """Of a map: uint8 where it has room for all classes and one more label, else uint16."""
        return np.dtype(np.uint8 if max(len(self.classes), self.ignored) < 256 else np.uint16)

    @property
    def ignore(self) -> int:
        """The label of a map where no class is known: `ignored`, where a map can hold it, else the largest."""
        most = int(np.iinfo(self.dtype).max)
        return self.ignored if 0 <= self.ignored <= most else most

    @functools.cached_property
    def colours(self) -> np.ndarray:
        """Of every class, uint8 [classes, 3]; black is of none."""
        from matplotlib.colors import to_rgb

        count = len(self.classes)
        return np.array([[round(255 * x) for x in to_rgb(colour(i, count))] for i in range(count)], np.uint8)

    def painted(self, labels: np.ndarray) -> np.ndarray:
        """Labels [...] as colours, uint8 [..., 3]; black where there is no class."""
        table = np.concatenate([self.colours, np.zeros((1, 3), np.uint8)])
        known = (labels >= 0) & (labels < len(self.classes))
        return table[np.where(known, labels, len(self.classes))]

    def write(self, file: epath.PathLike) -> None:
        """Writes `classes.csv` as folders of pairs have it; see `scaling.data.sources.pairs`."""
        colours = ["#{:02X}{:02X}{:02X}".format(*colour) for colour in self.colours.tolist()]
        classes = zip(range(len(colours)), self.classes, colours, strict=True)
        write_csv(file, [("index", "name", "rgb"), *classes, (self.ignore, NOT_SEEN, "#000000")])
