"""An image, its truth, what was predicted and where that is wrong, side by side; large ones reduced."""

import math

import numpy as np
from etils import epath

from scaling.core.canvas import as_colours, new_figure, save
from scaling.data.legend import Legend

SHOWN = 512  # pixels along the longer side, at most
_INCHES = 4.0  # of a column
_RIGHT, _WRONG, _NOT_COUNTED = (0.85, 0.85, 0.85), (0.8, 0.1, 0.1), (0.0, 0.0, 0.0)


class Picture:
    """What is seen of an image [height, width], every so many pixels; taken row by row.

    Args:
      size: height and width of the whole image.
      legend: of its labels.
    """

    def __init__(self, size: tuple[int, ...], legend: Legend):
        self.legend, self._step = legend, max(math.ceil(max(size) / SHOWN), 1)
        self._size = tuple(math.ceil(length / self._step) for length in size)
        self._parts: dict[str, np.ndarray] = {}

    def add(self, top: int, **rows: np.ndarray | None) -> None:
        """Takes rows of `image` [rows, width, bands], `truth` and `prediction` [rows, width], from row `top`; what is
        None is not shown.
        """
        for name, part in rows.items():
            if part is None:
                continue
            seen = part[-top % self._step :: self._step, :: self._step]
            whole = self._parts.setdefault(name, np.zeros((*self._size, *part.shape[2:]), part.dtype))
            first = -(-top // self._step)
            whole[first : first + len(seen)] = seen

    def draw(self, path: epath.Path, title: str = "") -> None:
        """Writes a PNG, its path without the ending.

        Columns are what has been added, of image, truth and prediction, and the error where there are both of the last;
        below them the names of the classes that occur in either.
        """
        from matplotlib.patches import Patch

        columns, truth, prediction = {}, self._parts.get("truth"), self._parts.get("prediction")
        if "image" in self._parts:
            columns["image"] = as_colours(self._parts["image"])
        maps = {name: self._parts[name] for name in ("truth", "prediction") if name in self._parts}
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
        height, width = self._size
        figure = new_figure(_INCHES * len(columns), _INCHES * min(height / width, 2) + 0.8)
        for axis, (name, shown) in zip(
            figure.subplots(1, len(columns), squeeze=False)[0], columns.items(), strict=True
        ):
            axis.imshow(shown, interpolation="nearest")
            axis.set_title(name)
            axis.set_axis_off()
        figure.suptitle(title)
        figure.legend(handles=entries, loc="outside lower center", ncols=max(min(len(entries), 2 * len(columns)), 1))
        save(figure, path)
