"""Average precision of oriented detections by the rules of the field, on whole images, in float64.

DOTA (CAPTAIN-WHU/DOTA_devkit, dota_evaluation_task1.py): a class at a time, detections best first. Each looks for the
truth of its image that it overlaps most, also among those that are difficult or taken. If it overlaps that by more than
0.5, it is right, once for every truth, and neither right nor wrong for a difficult one; else it is wrong. The mean
of the best precision at recalls of at least 0, 0.1, … 1 is the score, mAP the mean over classes. Kept as it is there:
0.3, 0.6 and 0.7 of that grid are a rounding step larger, so that a recall of exactly these does not reach them.
Defined here where it is not there: a class without detections has 0, and one without a truth that counts is left out
and named.

Equal scores: the devkit leaves their order to numpy's argsort, which is not stable and differs between processors. Kept
for more than 16 detections, as its example cannot be reproduced otherwise; up to 16, which numpy's plain quicksort
inserts in order, they keep the order of the file. `stable` counts with that order throughout, and both are reported.

The rules of DOTA v1.5 count difficult truths like any other. DIOR-R has no program of its own; mmrotate, with which it
is scored, counts them all and takes an overlap of 0.5 too.
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

MEAN = "mean of classes"  # beside their names, which have no spaces in files

_ELEVEN = np.arange(0.0, 1.1, 0.1)  # with the rounding of the devkit
_INSERTED = 16  # values that numpy's plain quicksort sorts by insertion, which keeps the order of equal ones
_PAIRS = 1 << 21  # looked at together
_CELLS = 1 << 22  # of draws x detections, held at once


@dataclasses.dataclass(frozen=True)
class Rules:
    """How a score is counted.

    Attributes:
      eleven: the mean over eleven recalls; else the area under the best precision at every recall.
      inclusive: whether an overlap of exactly the threshold is enough.
      difficult: whether difficult truths count like others.
      stable: whether equal scores keep the order of the file, however many there are.
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
    """What was found, of one class: numbers of the images [n], scores [n], corners [n, 4, 2] in pixels."""

    images: np.ndarray
    scores: np.ndarray
    corners: np.ndarray

    @classmethod
    def of(cls, images: Sequence[int], scores: Sequence[float], corners: Sequence[object]) -> Self:
        """From anything like arrays, empty ones too."""
        outlines = np.asarray(corners, np.float64).reshape(-1, 4, 2)
        return cls(np.asarray(images, np.int64), np.asarray(scores, np.float64), outlines)


class Truths(NamedTuple):
    """What there is, of one class: numbers of the images [m], difficult or not [m], corners [m, 4, 2] in pixels."""

    images: np.ndarray
    difficult: np.ndarray
    corners: np.ndarray

    @classmethod
    def of(cls, images: Sequence[int], difficult: Sequence[bool], corners: Sequence[object]) -> Self:
        """From anything like arrays, empty ones too."""
        outlines = np.asarray(corners, np.float64).reshape(-1, 4, 2)
        return cls(np.asarray(images, np.int64), np.asarray(difficult, bool), outlines)


def best_truths(found: Detections, there: Truths) -> tuple[np.ndarray, np.ndarray]:
    """The largest overlap of each detection with a truth of its image, and which that is: float64 [n], int64 [n].

    The first of equal ones; 0 and -1 where none shares an area with it.
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
    """Pairs (detection, truth) of one image whose hulls share an area, all of a detection in one part."""
    if not len(found.images) or not len(there.images):
        return
    mine, theirs = hulls(found.corners), hulls(there.corners)
    # On one line, the images behind one another: candidates are a stretch of the truths from left to right.
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
      images, scores: of the detections [n].
      overlap, truth: of each with that truth [n], see `best_truths`.
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
            raise UserError("a score is not a number; detections are ordered by theirs")
        return cls(found.images, found.scores, *best_truths(found, there), there)

    def order(self, rules: Rules) -> np.ndarray:
        """Best first: int64 [n]."""
        keeps = rules.stable or len(self.scores) <= _INSERTED
        return np.argsort(-self.scores, kind="stable" if keeps else "quicksort")

    def positives(self, rules: Rules) -> np.ndarray:
        """Which truths count, bool [m]."""
        return ~self.there.difficult | rules.difficult

    def outcomes(self, rules: Rules, threshold: float = THRESHOLD) -> tuple[np.ndarray, np.ndarray]:
        """Which detections are right and which are wrong, bool [n] each, best first; some are neither."""
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
        """In [0, 1]; NaN without a truth that counts."""
        right, wrong = (flags[None].astype(np.float64) for flags in self.outcomes(rules, threshold))
        return float(average_precision(right, wrong, self.positives(rules).sum()[None], rules.eleven)[0])

    def replicates(self, weights: np.ndarray, rules: Rules) -> np.ndarray:
        """Average precision [R] of images drawn so often [R, images]."""
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
    """Of detections, best first: [R, n] how often each counts as right and as wrong, [R] truths -> [R].

    NaN where there are no truths, 0 where there are no detections.
    """
    rows, count = right.shape
    defined = positives > 0
    if not count:
        return np.where(defined, 0.0, np.nan)
    found, all_ = np.cumsum(right, axis=1), np.cumsum(right + wrong, axis=1)
    recall = found / np.where(defined, positives, 1)[:, None]
    precision = found / np.maximum(all_, np.finfo(np.float64).eps)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # at this recall or a larger one
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
      ap: by the rules.
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
      found, there: of each class, by its name; the classes are those of either.
      images: how many there are, numbered from 0.
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
        """How many of a class count."""
        return int(self._of[name].positives(self.rules).sum())

    def absent(self) -> tuple[str, ...]:
        """Classes without a truth that counts: left out of the means."""
        return tuple(name for name in self.classes if not self.truths(name))

    def scores(self) -> DetectionScores:
        """Of every class.

        Raises:
          UserError: there is not one truth that counts.
        """
        if len(self.absent()) == len(self.classes):
            raise UserError(f"no object of {self.images:,} images counts: there is nothing to be found")
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
        """Scores [draws] of as many images, drawn from these with replacement: by class, and `MEAN` of them."""
        blocks: dict[str, list[np.ndarray]] = {name: [] for name in self.classes}
        for weights in resampled(self.images, draws, seed):
            for name, of in self._of.items():
                blocks[name].append(of.replicates(weights, self.rules))
        found = {name: np.concatenate(parts) for name, parts in blocks.items()}
        return found | {MEAN: np.array([mean_of_defined(column) for column in zip(*found.values(), strict=True)])}

    def intervals(self, draws: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Interval]:
        """Percentile bootstrap intervals over images, by class and `MEAN`. Of one image nothing is known: None."""
        if self.images < 2:
            return dict.fromkeys((*self.classes, MEAN), (None, None))
        return {name: percentile_interval(values, level) for name, values in self.replicates(draws, seed).items()}


def mean_of_defined(values: Sequence[float]) -> float:
    """The mean of those that are not NaN; NaN if all are."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
