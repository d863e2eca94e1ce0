"""Confusion matrix for one class per image, as a table, a CSV file and a picture."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from etils import epath

from scaling.core.canvas import new_figure, save
from scaling.core.files import write_csv
from scaling.evaluation.scores import MULTI_LABEL, Predictions
from scaling.evaluation.segmentation import confusion_matrix

_NAMED = 30  # largest number of classes whose names fit beside a picture


@dataclasses.dataclass(frozen=True)
class Confusion:
    """A confusion matrix.

    Attributes:
      classes: names, in the order of the labels.
      matrix: int64 [K, K], numbers of test images, rows by true class.
    """

    classes: tuple[str, ...]
    matrix: np.ndarray

    @classmethod
    def of(cls, predictions: Predictions, classes: Sequence[str]) -> "Confusion":
        """The confusion matrix of predictions with one class per image."""
        names = tuple(classes)
        matrix = confusion_matrix(predictions.predicted, predictions.truth, len(names), ignore=-1)[:, : len(names)]
        return cls(names, matrix)

    def accuracy(self) -> np.ndarray:
        """Accuracy on the images of each class, [K]; NaN for a class without images."""
        there = self.matrix.sum(1)
        return np.divide(np.diag(self.matrix), there, out=np.full(len(there), np.nan), where=there > 0)

    def table(self) -> str:
        """One line per class: its images, its accuracy, and the classes it is most often confused with."""
        width = max(map(len, (*self.classes, "class")))
        lines = [f"  {'class':<{width}}   images    right  mostly taken for"]
        for k, (name, share) in enumerate(zip(self.classes, self.accuracy(), strict=True)):
            wrong = np.where(np.arange(len(self.classes)) == k, 0, self.matrix[k])
            most = int(wrong.argmax())
            taken = f"{self.classes[most]} ({wrong[most]:,})" if wrong[most] else "-"
            right = "      -" if np.isnan(share) else f"{share:7.1%}"
            lines.append(f"  {name:<{width}}  {self.matrix[k].sum():>7,}  {right}  {taken}")
        return "\n".join(lines)

    def write(self, file: epath.PathLike) -> None:
        """Writes the matrix as CSV: a row for every true class, a column for every predicted one."""
        rows = zip(self.classes, self.matrix.tolist(), strict=True)
        write_csv(file, [("true class", *self.classes), *((name, *row) for name, row in rows)])

    def draw(self, file: epath.PathLike) -> None:
        """Draws the matrix as a PNG, with every row as shares of its true class, and names if they fit."""
        count = len(self.classes)
        side = max(4.0, 2 + 0.3 * min(count, _NAMED))
        figure = new_figure(side + 1, side)
        axes = figure.subplots()
        shares = self.matrix / np.maximum(self.matrix.sum(1, keepdims=True), 1)
        image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
        axes.set(xlabel="predicted", ylabel="true")
        if count <= _NAMED:
            axes.set_xticks(range(count), self.classes, rotation=90)
            axes.set_yticks(range(count), self.classes)
        if count <= _NAMED // 2:
            for (i, j), images in np.ndenumerate(self.matrix):
                colour = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, str(images), ha="center", va="center", color=colour, fontsize=7)
        figure.colorbar(image, ax=axes, label="share of the true class")
        save(figure, epath.Path(file).with_suffix(""))


def write_wrong(file: epath.PathLike, predictions: Predictions, names: Sequence[str], classes: Sequence[str]) -> int:
    """Writes the images that are taken for another class as CSV, `file,class,taken_for`; returns their number."""
    wrong = np.flatnonzero(predictions.predicted != predictions.truth)
    labels = zip(predictions.truth[wrong], predictions.predicted[wrong], strict=True)
    rows = [(names[int(i)], classes[int(y)], classes[int(said)]) for i, (y, said) in zip(wrong, labels, strict=True)]
    write_csv(file, [("file", "class", "taken_for"), *sorted(rows)])
    return len(rows)


def label_table(predictions: Predictions, classes: Sequence[str]) -> str:
    """One line per label, for images with several: number of images that have it, and its average precision."""
    width, once = max(map(len, (*classes, "label"))), np.ones((1, len(predictions.truth)), np.float32)
    lines = [f"  {'label':<{width}}   images  average precision"]
    for k, name in enumerate(classes):
        of_one = predictions.predicted[:, [k]], predictions.truth[:, [k]]
        precision = float(MULTI_LABEL["macro_map"](*of_one, once)[0])
        right = "      -" if np.isnan(precision) else f"{precision:7.1%}"
        lines.append(f"  {name:<{width}}  {int(of_one[1].sum()):>7,}  {right}")
    return "\n".join(lines)
