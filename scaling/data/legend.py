"""The classes and colours of label maps."""

import dataclasses
import functools

import numpy as np
from etils import epath

from scaling.core.canvas import colour
from scaling.core.files import write_csv

NOT_SEEN = "no data"  # name of the ignored label in a table of classes


@dataclasses.dataclass(frozen=True)
class Legend:
    """Classes and their colours.

    Attributes:
      classes: names, in the order of the labels from 0.
      ignored: the label of unlabelled pixels in the truth.
    """

    classes: tuple[str, ...]
    ignored: int = 255

    @property
    def dtype(self) -> np.dtype:
        """dtype of a map: uint8 if it can hold all classes and one more label, else uint16."""
        return np.dtype(np.uint8 if max(len(self.classes), self.ignored) < 256 else np.uint16)

    @property
    def ignore(self) -> int:
        """Label of unlabelled pixels in a map: `ignored` if the dtype can hold it, else the largest value."""
        most = int(np.iinfo(self.dtype).max)
        return self.ignored if 0 <= self.ignored <= most else most

    @functools.cached_property
    def colours(self) -> np.ndarray:
        """Colour of every class, uint8 [classes, 3]; never black."""
        from matplotlib.colors import to_rgb

        count = len(self.classes)
        return np.array([[round(255 * x) for x in to_rgb(colour(i, count))] for i in range(count)], np.uint8)

    def painted(self, labels: np.ndarray) -> np.ndarray:
        """Labels [...] as colours, uint8 [..., 3]; black for labels that are not a class."""
        table = np.concatenate([self.colours, np.zeros((1, 3), np.uint8)])
        known = (labels >= 0) & (labels < len(self.classes))
        return table[np.where(known, labels, len(self.classes))]

    def write(self, file: epath.PathLike) -> None:
        """Writes `classes.csv` in the format that `scaling.data.sources.pairs` reads."""
        colours = ["#{:02X}{:02X}{:02X}".format(*colour) for colour in self.colours.tolist()]
        classes = zip(range(len(colours)), self.classes, colours, strict=True)
        write_csv(file, [("index", "name", "rgb"), *classes, (self.ignore, NOT_SEEN, "#000000")])
