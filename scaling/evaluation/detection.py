"""Average precision of oriented detections by the rules of the field, on whole images, in float64.

DOTA (CAPTAIN-WHU/DOTA_devkit, dota_evaluation_task1.py): class by class, detections best first. Each is matched to the
truth of its image that it overlaps most, even if that is difficult or already matched. If the overlap is more than 0.5,
the detection is right, once for every truth, or neither right nor wrong for a difficult one; else it is wrong. The
score is the mean of the best precision at recalls of at least 0, 0.1, … 1; mAP is the mean over classes. As in the
devkit, 0.3, 0.6 and 0.7 of that grid are a rounding step larger, so that a recall of exactly these does not reach them.
Two cases that the devkit leaves undefined are defined here: a class without detections has 0, and a class without a
counted truth is left out and named.

Equal scores: the devkit leaves their order to numpy's argsort, which is not stable and differs between processors. We
do the same for more than 16 detections, since its example cannot be reproduced otherwise; up to 16, which numpy's
quicksort sorts by insertion, the order of the file is kept. `stable` uses that order throughout, and both scores are
reported.

The rules of DOTA v1.5 count difficult truths like any other. DIOR-R has no program of its own; mmrotate, which is used
to score it, counts them all and also accepts an overlap of exactly 0.5.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np

from scaling.boxes.convert import hulls
from scaling.boxes.polygons import polygon_iou, upright_meet
from scaling.core.errors import UserError
from scaling.evaluation.scores import Interval, percentile_interval, resampled

THRESHOLD = 0.5
THRESHOLDS = tuple(i / 100 for i in range(50, 100, 5))

MEAN = "mean of classes"  # name beside those of classes, which have no spaces in files

_ELEVEN = np.arange(0.0, 1.1, 0.1)  # with the devkit's rounding
_INSERTED = 16  # values that numpy's plain quicksort sorts by insertion, which keeps the order of equal ones
_PAIRS = 1 << 21  # pairs processed together
_CELLS = 1 << 22  # draws x detections held at once


@dataclasses.dataclass(frozen=True)
class Rules:
    """Rules of a score.

    Attributes:
      eleven: whether the mean over eleven recalls is used instead of the area under the best precision at every recall.
      inclusive: whether an overlap of exactly the threshold is enough.
      difficult: whether difficult truths count like others.
      stable: whether equal scores always keep the order of the file.
    """

    eleven: bool = True
    inclusive: bool = False
    difficult: bool = False
    stable: bool = False


RULES = {
    "dota": Rules(),
    "dior": Rules(inclusive=True, difficult=True),
    "area": Rules(eleven=False),
}


class Detections(NamedTuple):
    """Detections of one class: image indices [n], scores [n], corners [n, 4, 2] in pixels."""

    images: np.ndarray
    scores: np.ndarray
    corners: np.ndarray

    @classmethod
    def of(cls, images: Sequence[int], scores: Sequence[float], corners: Sequence[object]) -> Self:
        """Detections from array-likes, which may be empty."""
        outlines = np.asarray(corners, np.float64).reshape(-1, 4, 2)
        return cls(np.asarray(images, np.int64), np.asarray(scores, np.float64), outlines)


class Truths(NamedTuple):
    """Truths of one class: image indices [m], difficult or not [m], corners [m, 4, 2] in pixels."""

    images: np.ndarray
    difficult: np.ndarray
    corners: np.ndarray

    @classmethod
    def of(cls, images: Sequence[int], difficult: Sequence[bool], corners: Sequence[object]) -> Self:
        """Truths from array-likes, which may be empty."""
        outlines = np.asarray(corners, np.float64).reshape(-1, 4, 2)
        return cls(np.asarray(images, np.int64), np.asarray(difficult, bool), outlines)


def best_truths(found: Detections, there: Truths) -> tuple[np.ndarray, np.ndarray]:
    """Largest overlap of each detection with a truth of its image, and the truth's index: float64 [n], int64 [n].

    Among equal overlaps the first; 0 and -1 if no truth shares an area with it.
    """
    overlap, truth = np.zeros(len(found.images)), np.full(len(found.images), -1, np.int64)
    for mine, theirs in _near(found, there):
        shared = polygon_iou(found.corners[mine], there.corners[theirs])
        order = np.lexsort((theirs, -shared, mine))
        first = order[np.unique(mine[order], return_index=True)[1]]
        first = first[shared[first] > 0]
        overlap[mine[first]], truth[mine[first]] = shared[first], theirs[first]
    return overlap, truth


def _near(found: Detections, there: Truths) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (detection, truth) of one image whose hulls share an area, in chunks that keep a detection's pairs
    together.
    """
    if not len(found.images) or not len(there.images):
        return
    mine, theirs = hulls(found.corners), hulls(there.corners)
    # On one axis, with the images placed end to end: the candidates of a detection are a contiguous range of truths.
    widest = (theirs[:, 2] - theirs[:, 0]).max()
    left = min(mine[:, 0].min(), theirs[:, 0].min())
    step = max(mine[:, 2].max(), theirs[:, 2].max()) - left + widest + 2
    places = theirs[:, 0] - left + there.images * step
    order = np.argsort(places, kind="stable")
    shift = found.images * step - left
    begin = np.searchsorted(places[order], mine[:, 0] + shift - widest - 1)
    count = np.searchsorted(places[order], mine[:, 2] + shift + 1) - begin
    ends = np.cumsum(count)
    for part in np.split(np.arange(len(count)), np.searchsorted(ends, np.arange(_PAIRS, ends[-1], _PAIRS))):
        total = int(count[part].sum())
        if not total:
            continue
        detection = np.repeat(part, count[part])
        within = np.arange(total) - np.repeat(np.cumsum(count[part]) - count[part], count[part])
        truth = order[np.repeat(begin[part], count[part]) + within]
        meet = upright_meet(mine[detection], theirs[truth])
        meet &= found.images[detection] == there.images[truth]
        yield detection[meet], truth[meet]


@dataclasses.dataclass(frozen=True)
class ClassMatches:
    """The detections of a class, each with the truth that it overlaps most.

    Attributes:
      images, scores: image and score of each detection [n].
      overlap, truth: overlap with that truth, and its index [n], see `best_truths`.
      there: the truths.
    """

    images: np.ndarray
    scores: np.ndarray
    overlap: np.ndarray
    truth: np.ndarray
    there: Truths

    @classmethod
    def of(cls, found: Detections, there: Truths) -> Self:
        """Raises UserError for a score that is not a number."""
        if np.isnan(found.scores).any():
            raise UserError("scores: one is NaN; scores must be numbers, which order the detections")
        return cls(found.images, found.scores, *best_truths(found, there), there)

    def order(self, rules: Rules) -> np.ndarray:
        """Best first: int64 [n]."""
        keeps = rules.stable or len(self.scores) <= _INSERTED
        return np.argsort(-self.scores, kind="stable" if keeps else "quicksort")

    def positives(self, rules: Rules) -> np.ndarray:
        """Whether each truth counts, bool [m]."""
        return ~self.there.difficult | rules.difficult

    def outcomes(self, rules: Rules, threshold: float = THRESHOLD) -> tuple[np.ndarray, np.ndarray]:
        """Whether each detection is right, and whether it is wrong, bool [n] each, best first; some are neither."""
        order = self.order(rules)
        overlap, truth = self.overlap[order], self.truth[order]
        hit = (overlap >= threshold if rules.inclusive else overlap > threshold) & (truth >= 0)
        neither = hit.copy()
        neither[hit] = ~self.positives(rules)[truth[hit]]
        candidates = np.flatnonzero(hit & ~neither)
        right = np.zeros(len(hit), bool)
        right[candidates[np.unique(truth[candidates], return_index=True)[1]]] = True
        return right, ~right & ~neither

    def average_precision(self, rules: Rules, threshold: float = THRESHOLD) -> float:
        """Average precision in [0, 1]; NaN without a counted truth."""
        right, wrong = (flags[None].astype(np.float64) for flags in self.outcomes(rules, threshold))
        return float(average_precision(right, wrong, self.positives(rules).sum()[None], rules.eleven)[0])

    def replicates(self, weights: np.ndarray, rules: Rules) -> np.ndarray:
        """Average precision [R] for resampled images, given the number of draws of each [R, images]."""
        right, wrong = self.outcomes(rules)
        counted, images = self.there.images[self.positives(rules)], self.images[self.order(rules)]
        size = max(1, _CELLS // max(1, len(right)))
        blocks = []
        for start in range(0, len(weights), size):
            often = weights[start : start + size].astype(np.float64)
            mine = often[:, images]
            blocks.append(average_precision(mine * right, mine * wrong, often[:, counted].sum(1), rules.eleven))
        return np.concatenate(blocks)


def average_precision(right: np.ndarray, wrong: np.ndarray, positives: np.ndarray, eleven: bool) -> np.ndarray:
    """Average precision of detections, best first, counted [R, n] times as right and as wrong, with [R] truths -> [R].

    NaN without truths, 0 without detections.
    """
    rows, count = right.shape
    defined = positives > 0
    if not count:
        return np.where(defined, 0.0, np.nan)
    found, all_ = np.cumsum(right, axis=1), np.cumsum(right + wrong, axis=1)
    recall = found / np.where(defined, positives, 1)[:, None]
    precision = found / np.maximum(all_, np.finfo(np.float64).eps)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # best precision at this recall or a larger one
    if not eleven:
        area = (np.diff(recall, axis=1, prepend=0) * best).sum(1)
        return np.where(defined, area, np.nan)
    padded = np.concatenate((best, np.zeros((rows, 1))), axis=1)
    total = np.zeros(rows)
    for at in _ELEVEN:
        reached = (recall < at).sum(1)
        total += padded[np.arange(rows), reached]
    return np.where(defined, total / len(_ELEVEN), np.nan)


@dataclasses.dataclass(frozen=True)
class DetectionScores:
    """Scores in [0, 1] by class; NaN without a truth that counts.

    Attributes:
      ap: average precision by the rules.
      ap_area: the same with the area under the precision.
      ap_difficult: the same with difficult truths counted, as in DOTA v1.5.
      ap_stable: the same with equal scores in the order of the file.
      ap_range: the mean over overlaps of 0.5, 0.55, … 0.95.
    """

    ap: Mapping[str, float]
    ap_area: Mapping[str, float]
    ap_difficult: Mapping[str, float]
    ap_stable: Mapping[str, float]
    ap_range: Mapping[str, float]


class DetectionTotals:
    """Detections and truths of all classes, matched.

    Args:
      found, there: detections and truths by class name; a class may be in only one of them.
      images: number of images, which are numbered from 0.
      rules: see `RULES`.
    """

    def __init__(
        self, found: Mapping[str, Detections], there: Mapping[str, Truths], images: int, rules: Rules = RULES["dota"]
    ):
        self.images, self.rules = images, rules
        nothing, none = Detections.of([], [], []), Truths.of([], [], [])
        self.classes = tuple(sorted({*found, *there}))
        self._of = {name: ClassMatches.of(found.get(name, nothing), there.get(name, none)) for name in self.classes}

    def matches(self, name: str) -> ClassMatches:
        return self._of[name]

    def truths(self, name: str) -> int:
        """Number of counted truths of a class."""
        return int(self._of[name].positives(self.rules).sum())

    def absent(self) -> tuple[str, ...]:
        """Classes without a counted truth, which are left out of the means."""
        return tuple(name for name in self.classes if not self.truths(name))

    def scores(self) -> DetectionScores:
        """Scores of every class.

        Raises:
          UserError: no truth counts.
        """
        if len(self.absent()) == len(self.classes):
            raise UserError(f"no object of {self.images:,} images counts; give images with objects")
        rules = self.rules
        ap, area, difficult, stable = (
            {name: of.average_precision(how) for name, of in self._of.items()}
            for how in (
                rules,
                dataclasses.replace(rules, eleven=False),
                dataclasses.replace(rules, difficult=True),
                dataclasses.replace(rules, stable=True),
            )
        )
        every = {name: [of.average_precision(rules, at) for at in THRESHOLDS] for name, of in self._of.items()}
        over = {name: float(np.mean(values)) for name, values in every.items()}
        return DetectionScores(ap, area, difficult, stable, over)

    def replicates(self, draws: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
        """Scores [draws] of bootstrap samples of the images: by class, and their mean `MEAN`."""
        blocks: dict[str, list[np.ndarray]] = {name: [] for name in self.classes}
        for weights in resampled(self.images, draws, seed):
            for name, of in self._of.items():
                blocks[name].append(of.replicates(weights, self.rules))
        found = {name: np.concatenate(parts) for name, parts in blocks.items()}
        return found | {MEAN: np.array([mean_of_defined(column) for column in zip(*found.values(), strict=True)])}

    def intervals(self, draws: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Interval]:
        """Percentile bootstrap intervals over images, by class and `MEAN`; None for a single image."""
        if self.images < 2:
            return dict.fromkeys((*self.classes, MEAN), (None, None))
        return {name: percentile_interval(values, level) for name, values in self.replicates(draws, seed).items()}


def mean_of_defined(values: Sequence[float]) -> float:
    """The mean of the values that are not NaN; NaN if all are."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
