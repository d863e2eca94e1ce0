"""Pictures of images with detections and true boxes; hits, misses and false alarms have different colours."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from etils import epath

from scaling.core.canvas import as_colours, named_bands, new_figure, save
from scaling.data.legend import Legend
from scaling.data.targets import Quadrilaterals
from scaling.evaluation.detection import RULES, ClassMatches, Detections, Rules, Truths
from scaling.evaluation.pictures import Reduced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 1024  # largest length of a picture's longer side, in pixels
SURE = 0.3  # detections with lower scores are not drawn

_INCHES = 9.0
_SCORED, _NAMED = 40, 12  # largest numbers of detections whose scores, and classes, are written beside them


class FoundBoxes(NamedTuple):
    """Detections of one image.

    Attributes:
      corners: [n, 4, 2] of (x, y) in pixels.
      scores: [n].
      classes: int [n].
    """

    corners: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def taken(self, which: Any) -> "FoundBoxes":
        """A selection of the detections."""
        return FoundBoxes(*(part[which] for part in self))


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """Outcome of matching the detections and truths of an image.

    Attributes:
      hit, false_alarm: whether each detection is right, and whether it is wrong, bool [n]; some are neither.
      missed: whether each counted truth has no right detection, bool [m].
    """

    hit: np.ndarray
    false_alarm: np.ndarray
    missed: np.ndarray


def outcomes_of_image(found: FoundBoxes, truth: Quadrilaterals, rules: Rules = RULES["dota"]) -> Outcomes:
    """Matches one image by the rules of a score."""
    hit, false_alarm = (np.zeros(len(found.scores), bool) for _ in range(2))
    missed = ~truth.difficult | rules.difficult
    for kind in np.unique(np.concatenate([found.classes, truth.classes])):
        mine, theirs = np.flatnonzero(found.classes == kind), np.flatnonzero(truth.classes == kind)
        matches = ClassMatches.of(
            Detections(np.zeros(len(mine), np.int64), found.scores[mine], found.corners[mine].astype(np.float64)),
            Truths(np.zeros(len(theirs), np.int64), truth.difficult[theirs], truth.corners[theirs].astype(np.float64)),
        )
        right, wrong = matches.outcomes(rules)
        order = matches.order(rules)
        hit[mine[order]], false_alarm[mine[order]] = right, wrong
        missed[theirs[matches.truth[order][right]]] = False
    return Outcomes(hit, false_alarm, missed)


class BoxPicture:
    """A reduced picture of an image [height, width, bands], filled row by row.

    Args:
      size: height and width of the whole image.
      classes: names.
      rgb: bands shown as red, green and blue; () for the first three.
    """

    def __init__(self, size: tuple[int, ...], classes: Sequence[str], rgb: Sequence[int] = ()):
        self._classes, self._rgb, self._seen = tuple(classes), rgb, Reduced(size, SHOWN)

    def add(self, top: int, rows: np.ndarray) -> None:
        """Takes rows [rows, width, bands] of the image, from row `top`."""
        self._seen.add(top, image=rows)

    def draw(
        self,
        path: epath.Path,
        found: FoundBoxes,
        truth: Quadrilaterals | None = None,
        title: str = "",
        *,
        sure: float = SURE,
        rules: Rules = RULES["dota"],
    ) -> None:
        """Writes a PNG; its path is given without the ending.

        Detections with a score of at least `sure` are drawn. With a truth their colour shows the outcome, and missed
        truths are dashed; without a truth it shows the class. The legend has the number of each.
        """
        from matplotlib.lines import Line2D

        found = found.taken(found.scores >= sure)
        kinds = list(self._of_classes(found) if truth is None else _of_outcomes(found, truth, rules))
        height, width = self._seen.size
        figure = new_figure(_INCHES, min(max(_INCHES * height / width, 2), 3 * _INCHES) + 1)
        axis, image = figure.subplots(), self._seen.parts["image"]
        bands = named_bands(image.shape[-1], self._rgb)
        axis.imshow(as_colours(image, self._rgb), interpolation="nearest")
        axis.set_axis_off()
        for kind in kinds:
            self._outline(axis, kind)
            if len(found.scores) <= _SCORED:
                self._write(axis, kind, named=truth is not None and len(found.scores) <= _NAMED)
        axis.set_xlim(-0.5, width - 0.5)
        axis.set_ylim(height - 0.5, -0.5)
        figure.suptitle(f"{title}\ndetections with scores from {sure:g}" + f"\n{bands}" * bool(bands))
        lines = [Line2D([], [], color=k.colour, linestyle=k.style, label=f"{k.name}: {len(k.corners)}") for k in kinds]
        figure.legend(handles=lines, loc="outside lower center", ncols=max(min(len(lines), 4), 1))
        save(figure, path)

    def _of_classes(self, found: FoundBoxes) -> Iterator["_Kind"]:
        colours = Legend(self._classes).colours / 255
        for i in np.unique(found.classes):
            mine = found.taken(found.classes == i)
            yield _Kind(self._classes[i], tuple(colours[i]), "-", mine.corners, mine)

    def _outline(self, axis: "Axes", kind: "_Kind") -> None:
        from matplotlib.collections import PolyCollection

        lines = PolyCollection(
            list(self._places(kind)), facecolors="none", edgecolors=kind.colour, linestyles=kind.style
        )
        lines.set_linewidth(1.2)
        axis.add_collection(lines)

    def _write(self, axis: "Axes", kind: "_Kind", named: bool) -> None:
        """Writes the scores of detections beside their upper corners."""
        if kind.found is None:
            return
        for outline, score, i in zip(self._places(kind), kind.found.scores, kind.found.classes, strict=True):
            x, y = outline[outline[:, 1].argmin()]
            told = f"{self._classes[i]} {score:.2f}" if named else f"{score:.2f}"
            axis.text(x, y, told, color=kind.colour, fontsize=7, verticalalignment="bottom", clip_on=True)

    def _places(self, kind: "_Kind") -> np.ndarray:
        """Corners in display coordinates, in which the middles of pixels are integers."""
        return np.asarray((kind.corners - 0.5) / self._seen.step)


class _Kind(NamedTuple):
    """Outlines drawn alike, and their detections if they have any."""

    name: str
    colour: Any
    style: Any
    corners: np.ndarray
    found: FoundBoxes | None = None


HIT, FALSE_ALARM, MISSED, NEITHER, THERE = "#2ca02c", "#d62728", "#ffbf00", "#a0a0a0", "#30c0ff"


def _of_outcomes(found: FoundBoxes, truth: Quadrilaterals, rules: Rules) -> Iterator[_Kind]:
    """The kinds of outline that occur, in drawing order."""
    outcomes = outcomes_of_image(found, truth, rules)
    apart = truth.difficult & ~np.bool_(rules.difficult)
    hits, wrong, neither = map(found.taken, (outcomes.hit, outcomes.false_alarm, ~outcomes.hit & ~outcomes.false_alarm))
    kinds = (
        _Kind("truth, found", THERE, ":", truth.corners[~outcomes.missed & ~apart]),
        _Kind("truth, difficult", NEITHER, ":", truth.corners[apart]),
        _Kind("neither right nor wrong", NEITHER, "-", neither.corners, neither),
        _Kind("false alarm", FALSE_ALARM, "-", wrong.corners, wrong),
        _Kind("hit", HIT, "-", hits.corners, hits),
        _Kind("truth, missed", MISSED, "--", truth.corners[outcomes.missed]),
    )
    yield from (kind for kind in kinds if len(kind.corners))
