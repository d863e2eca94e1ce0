"""Scores of the study by objective, kind of training and cut, from its rows, and their differences over seeds."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import numpy as np
from scipy import stats

from scaling.core.rows import Row
from scaling.evaluation.scores import over_seeds, percentile_interval
from scaling.studies.checking import Outcomes

SCORE, PROBES = "macro_accuracy", ("knn", "linear")
SETS = {"knn": ("rssccn7", "eurosat"), "linear": ("rssccn7",)}  # by probe
OBJECTIVES, KINDS = ("mae", "moco"), ("regular", "longer", "slimmable")
WIDTHS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
NARROW = (0.05, 0.1, 0.25, 0.5, 0.75)
CUTS = {"published": ("first", "none"), "repaired": ("svd", "ridge")}


class Difference(NamedTuple):
    """A difference in points: its mean, interval and p, and the value of every seed.

    Attributes:
      p: two-sided, of the normal distribution with the deviation of the bootstrap.
    """

    value: float
    low: float
    high: float
    p: float
    seeds: tuple[float, ...]

    @property
    def one_sign(self) -> bool:
        """Whether all seeds have the sign of the mean."""
        return bool(np.all(np.sign(self.seeds) == np.sign(self.value)))


@dataclasses.dataclass(frozen=True)
class Arm:
    """Scores in points of the encoders of one kind: [S] by seed, with bootstrap replicates [S, R]; entries of a column
    are of the same drawn images.
    """

    values: np.ndarray
    draws: np.ndarray

    @classmethod
    def mean(cls, arms: Iterable[Self]) -> Self:
        """The mean over widths or sets."""
        found = list(arms)
        return cls(np.mean([a.values for a in found], axis=0), np.mean([a.draws for a in found], axis=0))

    def minus(self, other: "Arm") -> "Arm":
        """Paired by seed and by image."""
        return Arm(self.values - other.values, self.draws - other.draws)

    def over(self, others: "Arm | None" = None) -> Difference:
        """The mean over seeds, minus that of others whose seeds are independent of these."""
        value, draws = self.values.mean(), over_seeds(self.draws)
        if others is not None:
            value, draws = value - others.values.mean(), draws - over_seeds(others.draws, seed=1)
        low, high = percentile_interval(draws)
        assert low is not None
        assert high is not None
        deviation = draws.std()
        p = float(2 * stats.norm.sf(abs(value) / deviation)) if deviation > 0 else 1.0
        return Difference(float(value), low, high, p, tuple(self.values.tolist()))


class Scores:
    """All scores of the study.

    Args:
      rows: rows of scores with outcomes, and of labels.
      seeds: seeds of pretraining, all of which every kind of encoder must have.
      draws: bootstrap draws.
    """

    def __init__(self, rows: Sequence[Row], seeds: Sequence[int] = (0, 1, 2), draws: int = 1000):
        self._outcomes, self._seeds = Outcomes(rows, draws), tuple(seeds)
        self._rows: dict[tuple[object, ...], dict[int, Row]] = {}
        for row in rows:
            if row.metric == SCORE and self._outcomes.known(row):
                self._add(row)

    def _add(self, row: Row) -> None:
        *kind, seed = row.model.split("_seed") if row.objective != "none" else (row.model, row.seed)
        width = 0.0 if row.mode == "control" else row.width_ratio
        key = (*kind, row.ordering, row.recovery, row.dataset, row.probe, width)
        self._rows.setdefault(key, {})[int(seed)] = row

    def _arm(self, *key: object, seeds: Sequence[int] = ()) -> Arm:
        rows = self._rows[key]
        pairs = [self._outcomes.scored(rows[seed]) for seed in seeds or sorted(rows)]
        return Arm(100 * np.array([x for x, _ in pairs]), 100 * np.array([draws for _, draws in pairs]))

    def cut(self, objective: str, kind: str, cut: str, dataset: str, probe: str, width: float) -> Arm:
        """The encoders of one kind, cut to one width; at full width both cuts are the encoder itself."""
        how = CUTS["published" if width == 1 else cut]
        return self._arm(f"{objective}_{kind}", *how, dataset, probe, width, seeds=self._seeds)

    def narrow(self, objective: str, kind: str, cut: str, probe: str) -> Arm:
        """The mean over the probe's sets and the narrower widths that were trained."""
        return self.both(objective, kind, cut, probe, NARROW)

    def both(self, objective: str, kind: str, cut: str, probe: str, widths: Sequence[float]) -> Arm:
        """The mean over the probe's sets and some widths."""
        return Arm.mean(
            Arm.mean(self.cut(objective, kind, cut, dataset, probe, width) for width in widths)
            for dataset in SETS[probe]
        )

    def random(self, dataset: str, probe: str, width: float = 1.0) -> Arm:
        """Random weights, one seed a draw of them."""
        return self._arm("random_weights", *CUTS["published"], dataset, probe, width)

    def control(self, name: str, dataset: str, probe: str, model: str = "mae_regular") -> Arm:
        """A control without blocks; those of the image alone are the same for every model."""
        return self._arm(model, name, "none", dataset, probe, 0.0)
