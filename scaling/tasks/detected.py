"""Detections on a test split with the truth, and their scores."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from scaling.data.targets import Quadrilaterals
from scaling.evaluation.box_pictures import FoundBoxes
from scaling.evaluation.detection import MEAN, Detections, DetectionTotals, Rules, Truths, mean_of_defined
from scaling.evaluation.detection_report import detection_table
from scaling.evaluation.scores import Interval


@dataclasses.dataclass(frozen=True)
class Detected:
    """Detections and truths, matched."""

    totals: DetectionTotals

    def scores(self) -> dict[str, float]:
        """Means over the classes: `map` by the rules of the task; with the area under the precision-recall curve;
        over overlaps of 0.5 to 0.95.
        """
        scores = self.totals.scores()
        means = {"map": scores.ap, "map_area": scores.ap_area, "map_50_95": scores.ap_range}
        return {name: mean_of_defined(list(of.values())) for name, of in means.items()}

    def intervals(self) -> dict[str, Interval]:
        """Interval of `map`, over images; the other scores have none."""
        nothing: Interval = (None, None)
        return dict.fromkeys(self.scores(), nothing) | {"map": self.totals.intervals()[MEAN]}

    def __str__(self) -> str:
        return detection_table(self.totals)


def rows_of(found: Sequence[FoundBoxes], there: Sequence[Quadrilaterals]) -> dict[str, np.ndarray]:
    """Detections and objects, image by image, as arrays with the indices of their images."""
    rows = {"images": np.arange(len(there))}
    for kind, parts in (("found", found), ("object", there)):
        rows[f"{kind}_image"] = np.repeat(rows["images"], [len(part.classes) for part in parts])
        for i, name in enumerate(parts[0]._fields):
            rows[f"{kind}_{name}"] = np.concatenate([part[i] for part in parts])
    return rows


def detected(rows: Mapping[str, np.ndarray], classes: Sequence[str], rules: Rules) -> Detected:
    """Matches detections and objects in the form of `rows_of`."""
    of = {kind: [rows[f"{kind}_classes"] == i for i in range(len(classes))] for kind in ("found", "object")}
    found = {
        name: Detections.of(*(rows[f"found_{part}"][mine] for part in ("image", "scores", "corners")))
        for name, mine in zip(classes, of["found"], strict=True)
    }
    there = {
        name: Truths.of(*(rows[f"object_{part}"][mine] for part in ("image", "difficult", "corners")))
        for name, mine in zip(classes, of["object"], strict=True)
    }
    return Detected(DetectionTotals(found, there, len(rows["images"]), rules))
