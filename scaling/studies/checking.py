"""Recomputes intervals from the outcomes stored in rows, and tests gains under multiple comparisons."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

from scaling.analysis.significance import holm
from scaling.core.rows import LABELS, Row
from scaling.evaluation.outcomes import predictions_of
from scaling.evaluation.scores import SINGLE_LABEL, Predictions, over_seeds, percentile_interval, retention

GAIN, KINDS = "_gain", ("_retention_above_chance", "_retention", "_gain", "")
_TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True)
class Recomputed:
    """A row as written, and the values recomputed from its outcomes.

    Attributes:
      row: the row as written.
      value, low, high: recomputed values, defined as in `Row`.
      replicates: [R], bootstrap replicates; NaN if undefined.
    """

    row: Row
    value: float | None
    low: float | None
    high: float | None
    replicates: np.ndarray

    @property
    def agrees(self) -> bool:
        """Whether the row has the recomputed values."""
        pairs = ((getattr(self.row, name), getattr(self, name)) for name in ("value", "low", "high"))
        return all(a == b or (None not in (a, b) and abs(a - b) < _TOLERANCE) for a, b in pairs)


class Outcomes:
    """The outcomes of rows, by measurement.

    Args:
      rows: rows of one file.
      draws: bootstrap draws, the same number as when the rows were written.

    Raises:
      UserError: outcomes that cannot be read.
    """

    def __init__(self, rows: Sequence[Row], draws: int = 1000):
        self._draws = draws
        self._labels = {_images(row): row.outcomes for row in rows if row.probe == LABELS}
        scored = [row for row in rows if row.outcomes and row.probe != LABELS and _images(row) in self._labels]
        self._rows = {row.identity: row for row in scored}
        self._plain: dict[tuple[object, ...], list[Row]] = {}
        for row in scored:
            if (row.ordering, row.recovery) == ("first", "none") and row.objective != "none":
                self._plain.setdefault((*_images(row), row.probe, row.metric, row.width_ratio), []).append(row)
        self._known: dict[tuple[str, str], tuple[Predictions, dict[str, np.ndarray]]] = {}

    def known(self, row: Row) -> bool:
        """Whether a row of a score has outcomes, and the classes of its images are known."""
        return row.identity in self._rows

    def scored(self, row: Row) -> tuple[float, np.ndarray]:
        """A score and its bootstrap replicates; rows with the same images have paired replicates."""
        predictions, draws = self._scored(row)
        return predictions.scores()[row.metric], draws[row.metric]

    def recomputed(self, row: Row) -> Recomputed | None:
        """A row recomputed from outcomes; None without outcomes."""
        score, kind = _parts(row)
        if score not in SINGLE_LABEL:
            return None
        own = self._rows.get(dataclasses.replace(row, metric=score).identity)
        other = None if kind == "" else self._reference(row, score, row.width_ratio if kind == GAIN else 1.0)
        if own is None or (kind and other is None):
            return None
        predictions, draws = self._scored(own)
        values, replicates = predictions.scores()[score], draws[score]
        if other is not None:
            full, full_draws = self._scored(other)
            if kind == GAIN:
                values, replicates = values - full.scores()[score], replicates - full_draws[score]
            else:
                chance, name = full.chance()[score], kind.removeprefix("_")
                values = float(retention([values], full.scores()[score], chance)[name][0])
                replicates = retention(replicates, full_draws[score], chance)[name]
        if not np.isfinite(values):
            return Recomputed(row, None, None, None, replicates)
        low, high = percentile_interval(replicates)
        return Recomputed(row, values, low, high, replicates)

    def _reference(self, row: Row, score: str, width: float) -> Row | None:
        """The row of the published cut of that width, or of the full encoder, with the same seed (nearest
        neighbours have none).
        """
        found = self._plain.get((*_images(row), row.probe, score, width), [])
        found = [r for r in found if r.model == row.model or row.objective == "none"]
        found = [r for r in found if width == 1 or r.mode == row.mode]
        alike = [r for r in found if r.seed == row.seed] or [r for r in found if row.probe == "knn"]
        return alike[0] if len({r.model for r in alike}) == 1 else None

    def _scored(self, row: Row) -> tuple[Predictions, dict[str, np.ndarray]]:
        key = (row.outcomes, self._labels[_images(row)])
        if key not in self._known:
            predictions = predictions_of(*key)
            self._known[key] = predictions, predictions.replicates(self._draws)
        return self._known[key]


def _parts(row: Row) -> tuple[str, str]:
    """The score that a metric is derived from, and its kind, one of KINDS."""
    kind = next(kind for kind in KINDS if row.metric.endswith(kind))
    return row.metric.removesuffix(kind), kind


def _images(row: Row) -> tuple[str, ...]:
    """Key of the test images: rows with the same key have the same images in the same order."""
    return row.study, row.dataset, row.split, row.config_hash


def recompute(rows: Sequence[Row], draws: int = 1000) -> Iterator[Recomputed]:
    """All rows of a file that can be recomputed from outcomes.

    Raises:
      UserError: outcomes that cannot be read.
    """
    outcomes = Outcomes(rows, draws)
    for row in rows:
        if row.probe != LABELS and (found := outcomes.recomputed(row)):
            yield found


@dataclasses.dataclass(frozen=True)
class Gain:
    """A gain over the published cut, averaged over seeds.

    Attributes:
      rows: one row per seed.
      value, low, high: mean and 95 % interval; several seeds are resampled too.
      p: two-sided p-value of no gain, from a normal distribution with the bootstrap's standard deviation, after Holm's
        correction over all gains of the metric. 1 without deviation, as between two encoders with the same answers.
    """

    rows: list[Row]
    value: float
    low: float | None
    high: float | None
    p: float


def gains(found: Sequence[Recomputed]) -> dict[str, list[Gain]]:
    """All gains among the recomputed rows, by metric."""
    cells: dict[tuple[object, ...], list[Recomputed]] = {}
    for one in found:
        if one.row.metric.endswith(GAIN) and one.value is not None:
            cells.setdefault(dataclasses.replace(one.row, seed=0).identity, []).append(one)
    by_metric: dict[str, list[Gain]] = {}
    for cell in cells.values():
        value = float(np.mean([one.value for one in cell if one.value is not None]))
        draws = over_seeds([one.replicates for one in cell]) if len(cell) > 1 else cell[0].replicates
        deviation = float(np.std(draws))
        p = float(2 * stats.norm.sf(abs(value) / deviation)) if deviation > 0 else 1.0
        gain = Gain([one.row for one in cell], value, *percentile_interval(draws), p)
        by_metric.setdefault(cell[0].row.metric, []).append(gain)
    return {
        metric: [
            dataclasses.replace(gain, p=float(p))
            for gain, p in zip(all_, holm(np.array([g.p for g in all_])), strict=True)
        ]
        for metric, all_ in by_metric.items()
    }


def can_be(row: Row) -> bool:
    """Whether a row counts right and wrong answers, so that it could be recomputed from outcomes."""
    return row.probe != LABELS and _parts(row)[0] in SINGLE_LABEL
