"""Measures candidates: every choice of widths is one job, which repairs all of its depths in one pass."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from scaling.analysis.fronts import front
from scaling.core.rows import Row
from scaling.encoders.calibration import images_used
from scaling.encoders.encoder import Encoder
from scaling.encoders.slimmed import Slimmer
from scaling.evaluation.distance import Distance, error_interval, relative_error
from scaling.studies.rows import encoder_row
from scaling.studies.search.space import Candidate, Space, Widths

_ROUND = 4  # widths measured before the front is updated
_SHARES = 2, 1, 1  # relative sizes of the three parts of the images
STUDY, PROBE = "search", "features"
SELECTION, ERROR = "selection_error", "relative_error"  # errors on the second and on the third part


@dataclasses.dataclass(frozen=True)
class Measured:
    """A candidate with its cost and the distance of its features from those of the whole encoder.

    Attributes:
      error: error on the images used to choose candidates.
      held_out: error on the held-out images, used for reports.
    """

    candidate: Candidate
    cost: float
    error: float
    held_out: float


def divided(images: int, seed: int) -> list[np.ndarray]:
    """Indices of three random parts of the images: half to fit to, a quarter to choose on, and a quarter for the errors
    of the chosen candidates, whose errors on the images used to choose among hundreds are biased downwards.
    """
    order = np.random.default_rng(seed).permutation(images)
    ends = np.cumsum(_SHARES)[:-1] * images // sum(_SHARES)
    return [np.sort(part) for part in np.split(order, ends)]


class Bench:
    """Unlabelled images in three parts, see `divided`, on which candidates are repaired and measured.

    Args:
      encoder: the whole encoder.
      images: normalised [N, h, w, C].
      ordering: ordering of the units.
      pool: pool of the features.
      seed: seed of the parts.
    """

    def __init__(self, encoder: Encoder, images: np.ndarray, ordering: str, pool: str, seed: int):
        fitted, selection, held_out = (images[part] for part in divided(len(images), seed))
        self._compared = np.concatenate([selection, held_out])
        self._parts = {SELECTION: slice(len(selection)), ERROR: slice(len(selection), None)}
        self.calibration_images, self._ordering = images_used(len(fitted)), ordering
        self.one = functools.lru_cache(maxsize=3)(self._one)  # the winner and its rivals
        self._slimmer = Slimmer(encoder, fitted)
        self._distance = Distance(encoder, fitted, self._compared, pool)

    def errors(
        self, widths: Widths, sets: Sequence[tuple[int, ...]]
    ) -> Iterator[tuple[tuple[int, ...], np.ndarray, Callable[[], Encoder]]]:
        """For every set of blocks at these widths: the errors on the images compared, [N], those for selection first,
        and a function that makes the encoder.
        """
        channels = self._slimmer.channels(widths.ratios, self._ordering)
        for blocks, make, features in self._slimmer.repaired(widths.ratios, self._ordering, sets, self._compared):
            yield blocks, self._distance.errors(features(self._distance.pool), channels), make

    def estimates(self, errors: Sequence[np.ndarray], metric: str) -> dict[str, Any]:
        """`value`, `low` and `high` of the relative error on one part, `SELECTION` or `ERROR`, for one encoder; for
        two, of the first one's error minus the second's.
        """
        part = self._parts[metric]
        spread, some = self._distance.spread_of(part), [one[part] for one in errors]
        low, high = error_interval(some, spread)
        value, *others = (relative_error(one, spread) for one in some)
        return {"value": value - sum(others), "low": low, "high": high}

    def _one(self, candidate: Candidate) -> tuple[np.ndarray, Callable[[], Encoder]]:
        """For one candidate: the errors on the images [N], and a function that makes the encoder."""
        ((_, errors, make),) = self.errors(candidate.widths, [candidate.blocks])
        return errors, make


@dataclasses.dataclass(frozen=True)
class WidthsJob:
    """All depths for one choice of widths, a job of `scaling.studies.grid`.

    Attributes:
      templates: the row of every candidate before it is measured.
      bench: makes the `Bench`.
    """

    name: str
    widths: Widths
    templates: dict[tuple[int, ...], Row]
    bench: Callable[[], Bench]

    @property
    def cost(self) -> float:
        """Operations of its deepest encoder, relative to the whole one."""
        return 0.02 + max(row.compute for row in self.templates.values())

    def run(self) -> list[Row]:
        bench, rows = self.bench(), []
        for blocks, errors, _ in bench.errors(self.widths, list(self.templates)):
            for metric in (SELECTION, ERROR):
                found = bench.estimates([errors], metric)
                rows.append(dataclasses.replace(self.templates[blocks], metric=metric, **found))
        return rows


def candidate_row(space: Space, candidate: Candidate, ordering: str, about: dict[str, Any], **fields: Any) -> Row:
    """The row of a candidate before it is measured; `mode` identifies the candidate.

    Its `width_ratio` is the common share of the cut axes, as in rows of a mode, or else the product of their shares. It
    is comparable only between cuts of the same axes; `compute` is always comparable.
    """
    shares = math.prod(share for _, share in candidate.widths.cuts)
    of_all: dict[str, Any] = {"study": STUDY, "probe": PROBE, "metric": ERROR, "recovery": "ridge"}
    return encoder_row(
        space.cost(candidate),
        **(of_all | about | fields),
        ordering=ordering,
        width_ratio=shares,
        depth_ratio=len(candidate.blocks) / candidate.of,
        mode=str(candidate),
    )


def widths_job(
    space: Space, widths: Widths, ordering: str, about: dict[str, Any], bench: Callable[[], Bench]
) -> WidthsJob:
    """The job for one choice of widths; `about` has the fields that its rows share."""
    templates = {c.blocks: candidate_row(space, c, ordering, about) for c in space.candidates(widths)}
    return WidthsJob(f"{widths}, {about['config_hash']}", widths, templates, bench)


def explore(
    space: Space,
    most: int,
    budget: float,
    run: Callable[[list[Widths]], list[Measured]],
) -> list[Measured]:
    """Measures the uniform widths, including the full width, and the smallest of every axis; then, round by round, the
    neighbours of candidates on the front (one step along one axis), those near the budget first (Pareto local search,
    Paquete et al., 2004); when none are left, the others in order. Earlier measurements are used only once the search
    reaches them, so that an interrupted search takes the same path when it resumes.

    Args:
      space: space of the candidates.
      most: approximate number of candidates to measure; the first widths are measured in any case.
      budget: cost limit.
      run: measures all depths of the given widths, and returns everything ever measured.

    Returns:
      All candidates reached; every candidate of the space if there are no more than `most`.
    """
    done: list[Widths] = []
    pending = list(dict.fromkeys([*space.uniform, space.smallest]))
    room = max(math.ceil(most / len(space.sets)), len(pending))
    while pending:
        done += pending
        found = [one for one in run(pending) if one.candidate.widths in done]
        pending = _next(space, found, budget, set(done))[: min(_ROUND, room - len(done))]
    return found


def _next(space: Space, found: Sequence[Measured], budget: float, done: set[Widths]) -> list[Widths]:
    best = [found[i] for i in front([(one.cost, one.error) for one in found])]
    best.sort(key=lambda one: abs(math.log(one.cost / budget)))
    beside = dict.fromkeys(other for one in best for other in space.beside(one.candidate.widths))
    return [w for w in beside if w not in done] or [w for w in space.all_widths if w not in done]


@functools.lru_cache(maxsize=4)
def by_name(space: Space) -> dict[str, Candidate]:
    """Every candidate of a space, by its name in rows."""
    return {str(c): c for widths in space.all_widths for c in space.candidates(widths)}


def front_of(found: Sequence[Measured], kept: Callable[[Candidate], bool] = lambda _: True) -> list[Measured]:
    """The Pareto front of candidates, by cost."""
    some = [one for one in found if kept(one.candidate)]
    return [some[i] for i in front([(one.cost, one.error) for one in some])]


def gains_beside(best: list[Measured], other: list[Measured]) -> list[tuple[Measured, float]]:
    """Every point of another front, and how much closer the best front is at its cost, on the held-out images;
    negative if it is farther.
    """
    return [(one, one.held_out - at_cost(best, one.cost).held_out) for one in other]


def at_cost(line: list[Measured], cost: float) -> Measured:
    """The best point of a front within a cost that at least its cheapest point meets."""
    return [one for one in line if one.cost <= cost][-1]
