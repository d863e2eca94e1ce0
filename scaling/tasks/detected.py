"""What a detector says about the objects of a test split, beside the truth, and its scores."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from scaling.boxes.convert import corners
from scaling.core.errors import UserError
from scaling.evaluation.detection import MEAN, Detections, DetectionTotals, Rules, Truths, mean_of_defined
from scaling.evaluation.detection_report import detection_table
from scaling.evaluation.scores import Interval


@dataclasses.dataclass(frozen=True)
class Detected:
    """Detections and truths, matched."""

    totals: DetectionTotals

    def scores(self) -> dict[str, float]:
        """Means over the classes: `map` by the rules of the task; with the area under the precision; over overlaps of
        0.5 to 0.95.
        """
        scores = self.totals.scores()
        means = {"map": scores.ap, "map_area": scores.ap_area, "map_50_95": scores.ap_range}
        return {name: mean_of_defined(list(of.values())) for name, of in means.items()}

    def intervals(self) -> dict[str, Interval]:
        """Of `map`, over images; the others are told without."""
        nothing: Interval = (None, None)
        return dict.fromkeys(self.scores(), nothing) | {"map": self.totals.intervals()[MEAN]}

    def __str__(self) -> str:
        return detection_table(self.totals)


def detected(rows: Mapping[str, np.ndarray], classes: Sequence[str], rules: Rules) -> Detected:
    """Matches what `Detection.predict` says of all images of a split.

    Raises:
      UserError: an image has more objects than a batch has room for, so that not all of them are known here.
    """
    if (overflow := rows["box_overflow"]).any():
        most = rows["boxes"].shape[1]
        raise UserError(
            f"task.most={most}: {np.count_nonzero(overflow)} test images have more objects, up to "
            f"{most + overflow.max():,}, and all must be known to score them; set task.most to that"
        )
    image, place = np.nonzero(rows["found_valid"])
    outlines = corners(rows["found_boxes"][image, place].astype(np.float64))
    label, score = rows["found_labels"][image, place], rows["found_scores"][image, place]
    found = {
        name: Detections.of(image[label == i], score[label == i], outlines[label == i])
        for i, name in enumerate(classes)
    }
    image, place = np.nonzero(rows["box_valid"])
    label, difficult = rows["box_class"][image, place], rows["box_difficult"][image, place]
    objects = rows["boxes"][image, place]
    there = {
        name: Truths.of(image[label == i], difficult[label == i], objects[label == i]) for i, name in enumerate(classes)
    }
    return Detected(DetectionTotals(found, there, len(rows["boxes"]), rules))
