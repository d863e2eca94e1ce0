"""Scores of segmentation, from one confusion matrix over all counted pixels of all images.

A pixel whose true label is the ignored value is never counted, whatever its prediction. For class c, with I pixels
right, G true and P predicted: IoU = I / (G + P - I), F1 = 2 I / (G + P), accuracy = I / G. The means are those of
mmsegmentation's IoUMetric, with one exception: F1 of a class that is never predicted is 0, as in scikit-learn;
mmsegmentation leaves it out, which would reward never predicting a class.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from scaling.core.errors import UserError
from scaling.data.targets import foreign_labels, label_histogram
from scaling.evaluation.scores import Interval, percentile_interval, resampled

METRICS = ("miou", "oa", "mf1", "macc")

_BLOCK_PIXELS = 1 << 20  # pixels counted at once, as 64-bit integers


def confusion_matrix(predicted: np.ndarray, truth: np.ndarray, classes: int, ignore: int = 255) -> np.ndarray:
    """Confusion matrix, int64 [classes, classes + 1], rows by true class.

    The last column counts pixels predicted as `ignore`, which are wrong. Matrices of the parts of an image add up to
    that of the image.

    Args:
      predicted: integers of any shape, indices of classes or `ignore`.
      truth: the same shape; pixels with the value `ignore`, a class or not, are left out.
      classes: number of classes.
      ignore: the ignored label.

    Raises:
      UserError: the shapes differ, or a counted pixel has a label that is neither a class nor `ignore`.
    """
    if predicted.shape != truth.shape:
        raise UserError(
            f"the prediction has {_size(predicted)} pixels and its truth {_size(truth)}; "
            "predict at the size of the truth"
        )
    counted = truth != ignore
    real, said = truth[counted], predicted[counted]
    for what, labels in (("truth", real), ("prediction", said)):
        if wrong := foreign_labels(labels, classes, ignore):
            raise UserError(
                f"the {what} has labels that are neither a class (0 to {classes - 1}) nor ignored ({ignore}): {wrong}; "
                f"all of its labels: {label_histogram(labels)}"
            )
    matrix = np.zeros(classes * (classes + 1), np.int64)
    for start in range(0, len(real), _BLOCK_PIXELS):
        true, found = (labels[start : start + _BLOCK_PIXELS].astype(np.int64) for labels in (real, said))
        found = np.where(found == ignore, classes, found)
        matrix += np.bincount(true * (classes + 1) + found, minlength=len(matrix))
    return matrix.reshape(classes, classes + 1)


def _size(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape))


@dataclasses.dataclass(frozen=True)
class SegmentationScores:
    """Scores in [0, 1]; NaN for undefined ones.

    Attributes:
      miou, mf1: means over the classes that occur in the truth or the prediction.
      macc: mean over the classes that occur in the truth.
      oa: share of the counted pixels that are right.
      iou, f1, accuracy: [classes].
    """

    miou: float
    oa: float
    mf1: float
    macc: float
    iou: np.ndarray
    f1: np.ndarray
    accuracy: np.ndarray


class SegmentationTotals:
    """Sum of the confusion matrices of images; three counts per class are kept for each image, for intervals.

    The scores do not depend on the order or batching of the images. The draws of the intervals depend on position, so
    those of two models are paired if their images were added in the same order.

    Args:
      classes: names, in the order of the labels.
      ignore: the ignored label; if it is a class, that class is left out of all means.

    Attributes:
      matrix: int64 [classes, classes + 1] over all images, see `confusion_matrix`.
    """

    def __init__(self, classes: Sequence[str], ignore: int = 255):
        self.classes, self.ignore = tuple(classes), ignore
        self.matrix = np.zeros((len(self.classes), len(self.classes) + 1), np.int64)
        self._images: list[np.ndarray] = []  # [3, classes] each

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Counts one image; for arguments and errors see `confusion_matrix`."""
        self.add_matrix(confusion_matrix(predicted, truth, len(self.classes), self.ignore))

    def add_matrix(self, matrix: np.ndarray) -> None:
        """Counts the confusion matrix of one image, [classes, classes + 1] or [classes, classes]."""
        self.matrix[:, : matrix.shape[1]] += matrix
        self._images.append(_counts(matrix))

    def __str__(self) -> str:
        """Numbers of images and pixels, the means with their intervals, and a line for each class."""
        found, intervals = self.scores(), self.intervals()
        lines = [f"{len(self):,} images, {self.matrix.sum():,} pixels that count; 95% intervals are over images"]
        for name in METRICS:
            low, high = intervals[name]
            interval = f"  95% interval {low:.2%} to {high:.2%}" if low is not None and high is not None else ""
            lines.append(f"  {name:<5} {_percent(getattr(found, name))}{interval}")
        width = max(map(len, (*self.classes, "class")))
        lines.append(f"  {'class':<{width}}     IoU      F1  accuracy")
        for name, *each in zip(self.classes, found.iou, found.f1, found.accuracy, strict=True):
            iou, f1, accuracy = map(_percent, each)
            lines.append(f"  {name:<{width}} {iou} {f1}   {accuracy}")
        if absent := self.absent():
            lines.append(f"left out of the means, as they occur nowhere or are ignored: {', '.join(absent)}")
        if unsaid := int(self.matrix[:, -1].sum()):
            lines.append(f"{unsaid:,} pixels that count are predicted as the ignored label, and so wrong")
        return "\n".join(lines)

    def absent(self) -> tuple[str, ...]:
        """Classes that occur neither in the truth nor in the prediction, or are ignored: left out of the means."""
        pixels = self._counted(_counts(self.matrix))[1:].sum(0)
        return tuple(self.classes[c] for c in np.flatnonzero(pixels == 0))

    def scores(self) -> SegmentationScores:
        """Scores over all images.

        Raises:
          UserError: no pixel counts.
        """
        if not self.matrix.sum():
            raise UserError(
                f"no pixel of {len(self)} images counts: all of the truth is the ignored label {self.ignore}"
            )
        iou, f1, accuracy = _of_classes(self._counted(_counts(self.matrix)))
        means = self._means(_counts(self.matrix)[None])
        return SegmentationScores(
            **{name: float(mean[0]) for name, mean in means.items()}, iou=iou, f1=f1, accuracy=accuracy
        )

    def replicates(self, draws: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
        """Scores [draws] of bootstrap samples of the images, by name; NaN if no pixel counts."""
        counts = np.stack(self._images).reshape(len(self), -1).astype(np.float64)  # exact to 2^53 pixels
        blocks = [
            self._means((weights.astype(np.float64) @ counts).reshape(len(weights), 3, -1))
            for weights in resampled(len(self), draws, seed)
        ]
        return {name: np.concatenate([block[name] for block in blocks]) for name in METRICS}

    def intervals(self, draws: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Interval]:
        """Percentile bootstrap interval of every mean, over other sets of as many images.

        Pixels of an image are correlated, so images are drawn, not pixels. None for a single image.
        """
        if len(self) < 2:
            return dict.fromkeys(METRICS, (None, None))
        return {name: percentile_interval(values, level) for name, values in self.replicates(draws, seed).items()}

    def _counted(self, counts: np.ndarray) -> np.ndarray:
        """Counts [..., 3, classes] with those of an ignored class set to zero."""
        keep = np.arange(len(self.classes)) != self.ignore
        return counts * keep

    def _means(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Means [R] of counts [R, 3, classes]."""
        right, true = counts[:, 0].sum(-1), counts[:, 1].sum(-1)
        iou, f1, accuracy = map(_mean, _of_classes(self._counted(counts)))
        return {"miou": iou, "oa": _ratio(right, true), "mf1": f1, "macc": accuracy}


def _percent(value: float) -> str:
    return f"{'-':>7}" if np.isnan(value) else f"{value:7.2%}"


def _counts(matrix: np.ndarray) -> np.ndarray:
    """Pixels right, true and predicted of every class, int64 [3, classes]."""
    return np.stack([np.diagonal(matrix), matrix.sum(1), matrix[:, : len(matrix)].sum(0)])


def _of_classes(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """IoU, F1 and accuracy [..., classes] of counts [..., 3, classes]."""
    right, true, said = np.moveaxis(counts, -2, 0)
    return _ratio(right, true + said - right), _ratio(2 * right, true + said), _ratio(right, true)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, np.divide(part, np.maximum(whole, 1), dtype=np.float64), np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the classes with a defined value; NaN if there are none."""
    defined = ~np.isnan(values)
    number = defined.sum(-1)
    return np.where(number > 0, np.where(defined, values, 0).sum(-1) / np.maximum(number, 1), np.nan)
