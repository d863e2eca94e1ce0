"""An image, its truth, its prediction and the errors, side by side; large images are reduced."""

import math
from collections.abc import Sequence

import numpy as np
from etils import epath

from scaling.core.canvas import as_colours, named_bands, new_figure, save
from scaling.data.legend import Legend

SHOWN = 512  # largest length of the longer side, in pixels
_INCHES = 4.0  # width of a column
_RIGHT, _WRONG, _NOT_COUNTED = (0.85, 0.85, 0.85), (0.8, 0.1, 0.1), (0.0, 0.0, 0.0)


class Reduced:
    """A subsampled image [height, width], filled row by row.

    Args:
      size: height and width of the whole image.
      shown: largest number of pixels kept along the longer side.

    Attributes:
      step: distance between kept pixels.
      size: height and width of the subsampled image.
      parts: parts that were added, by name.
    """

    def __init__(self, size: tuple[int, ...], shown: int):
        self.step = max(math.ceil(max(size) / shown), 1)
        self.size = tuple(math.ceil(length / self.step) for length in size)
        self.parts: dict[str, np.ndarray] = {}

    def add(self, top: int, **rows: np.ndarray | None) -> None:
        """Adds rows of each part [rows, width, ...] from row `top`; parts that are None are skipped."""
        for name, part in rows.items():
            if part is None:
                continue
            seen = part[-top % self.step :: self.step, :: self.step]
            whole = self.parts.setdefault(name, np.zeros((*self.size, *part.shape[2:]), part.dtype))
            first = -(-top // self.step)
            whole[first : first + len(seen)] = seen


class Picture:
    """A reduced picture of an image [height, width], filled row by row.

    Args:
      size: height and width of the whole image.
      legend: legend of its labels.
      rgb: bands shown as red, green and blue; () for the first three.
    """

    def __init__(self, size: tuple[int, ...], legend: Legend, rgb: Sequence[int] = ()):
        self._rgb, self.legend, self._seen = rgb, legend, Reduced(size, SHOWN)

    def add(self, top: int, **rows: np.ndarray | None) -> None:
        """Adds rows of `image` [rows, width, bands], `truth` and `prediction` [rows, width], from row `top`; parts that
        are None are not shown.
        """
        self._seen.add(top, **rows)

    def draw(self, path: epath.Path, title: str = "") -> None:
        """Writes a PNG; its path is given without the ending.

        Columns are the added parts among image, truth and prediction, and the error if both of the latter were added;
        below them are the names of the classes that occur.
        """
        from matplotlib.patches import Patch

        parts = self._seen.parts
        columns, truth, prediction = {}, parts.get("truth"), parts.get("prediction")
        if "image" in parts:
            columns["image"] = as_colours(parts["image"], self._rgb)
        maps = {name: parts[name] for name in ("truth", "prediction") if name in parts}
        columns |= {name: self.legend.painted(labels) for name, labels in maps.items()}
        occurring = np.unique(np.concatenate([labels.ravel() for labels in maps.values()]))
        entries = [
            Patch(color=self.legend.colours[i] / 255, label=name)
            for i, name in enumerate(self.legend.classes)
            if i in occurring
        ]
        if truth is not None and prediction is not None:
            counts = truth != self.legend.ignored
            wrong = np.where((truth == prediction)[..., None], _RIGHT, _WRONG)
            columns["error"] = np.where(counts[..., None], wrong, _NOT_COUNTED)
            entries += [Patch(color=_WRONG, label="wrong"), Patch(color=_NOT_COUNTED, label="does not count")]
        height, width = self._seen.size
        figure = new_figure(_INCHES * len(columns), _INCHES * min(height / width, 2) + 0.8)
        for axis, (name, shown) in zip(
            figure.subplots(1, len(columns), squeeze=False)[0], columns.items(), strict=True
        ):
            axis.imshow(shown, interpolation="nearest")
            axis.set_title(name)
            if name == "image" and (bands := named_bands(parts[name].shape[-1], self._rgb)):
                axis.set_title(f"{name}\n{bands}", fontsize=9)
            axis.set_axis_off()
        figure.suptitle(title)
        figure.legend(handles=entries, loc="outside lower center", ncols=max(min(len(entries), 2 * len(columns)), 1))
        save(figure, path)
