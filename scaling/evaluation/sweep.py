"""Many narrower versions of one encoder, measured beside the full one: cuts x data sets x probes x seeds.

The unit of work is a cell: one encoder on one data set. Its images are decoded once for all cells of a data set, its
features once for all probes; its rows are written together and the last of them says that it is done. Programs are
compiled once per shape of the cut encoder, whatever the ordering, recovery, data set and seed.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from scaling.analysis import spectra
from scaling.analysis.compute import CONVENTIONS, flops, parameter_counts, whole_image
from scaling.errors import UserError
from scaling.evaluation.controls import CONTROLS, random_weights
from scaling.evaluation.datasets import DatasetConfig, Images, load
from scaling.evaluation.encoder import Encoder
from scaling.evaluation.metrics import Outcome, percentile_interval, retention
from scaling.evaluation.probes import PROBES
from scaling.evaluation.slimmed import Slimmer, slim
from scaling.models.vit import ViTConfig, abstract_vit
from scaling.results import Results, Row
from scaling.slimming.cutting import axis_sizes
from scaling.slimming.orderings import ORDERINGS
from scaling.slimming.recovery import RECOVERIES
from scaling.slimming.widths import PUBLISHED_WIDTHS, mode_axes, mode_plan

log = logging.getLogger(__name__)

LAST = ("features", "participation_ratio")  # probe and metric of the row that completes a cell
RANDOM = "random_weights"


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What is measured.

    Attributes:
      study: a name for the rows.
      widths, modes: see `scaling.slimming.widths`.
      orderings, recoveries: see `scaling.slimming.orderings` and `recovery`; every pair of them is measured.
      controls: see `scaling.evaluation.controls`; `random_weights` is cut to every width too.
      datasets: what the encoders are probed on, by name.
      probes: see `scaling.evaluation.probes`.
      neighbours, distance: of the k-NN probe.
      pool: cls, or mean over the patches.
      calibration: unlabelled training images of the data set that orderings and recoveries may look at.
      components: how many enter the slope of the explained variance.
      draws: of the bootstrap.
      seeds: of whatever is drawn at random; a cell without chance is measured once.
    """

    study: str = "slim"
    widths: tuple[float, ...] = PUBLISHED_WIDTHS
    modes: tuple[str, ...] = ("inner",)
    orderings: tuple[str, ...] = ("first",)
    recoveries: tuple[str, ...] = ("none",)
    controls: tuple[str, ...] = tuple(CONTROLS)
    datasets: dict[str, DatasetConfig] = dataclasses.field(default_factory=dict)
    probes: tuple[str, ...] = ("knn",)
    neighbours: int = 5
    distance: str = "cosine"
    pool: str = "mean"
    calibration: int = 256
    components: int = 32
    draws: int = 1000
    seeds: tuple[int, ...] = (0,)

    def check(self) -> None:
        """Raises UserError for a name that is not known, or nothing to measure."""
        known = {"orderings": ORDERINGS, "recoveries": RECOVERIES, "controls": CONTROLS, "probes": PROBES}
        for field, names in known.items():
            for name in getattr(self, field):
                if name not in names:
                    raise UserError(f"{field}: unknown {name!r}; choose from: {', '.join(names)}")
        for field in ("widths", "modes", "datasets", "probes", "seeds"):
            if not getattr(self, field):
                raise UserError(f"{field} is empty: there is nothing to measure")
        for mode in self.modes:
            mode_axes(mode)
        if self.pool not in ("mean", "cls"):
            raise UserError(f"pool={self.pool!r}: cls or mean")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One encoder of a sweep; `mode` is `control` for the controls that are not cut, `ordering` their name."""

    width: float
    mode: str
    ordering: str = "first"
    recovery: str = "none"
    weights: str = "pretrained"
    seed: int = 0


def cells(c: SweepConfig) -> Iterator[Cell]:
    """All of them, the full encoder's width included, without those that differ by a seed that nothing depends on."""
    by_chance = {"random", "energy"} | ({"svd"} if c.calibration else set())
    for name in c.controls:
        if name != RANDOM:
            yield Cell(1.0, "control", name)
    for mode in c.modes:
        for ordering in c.orderings:
            for recovery in c.recoveries:
                chance = ordering in by_chance or recovery != "none"
                for seed in c.seeds if chance else c.seeds[:1]:
                    yield from (Cell(width, mode, ordering, recovery, seed=seed) for width in c.widths)
        if RANDOM in c.controls:
            for seed in c.seeds:
                yield from (Cell(width, mode, weights=RANDOM, seed=seed) for width in c.widths)


class Sweep:
    """A sweep over one encoder.

    Args:
      encoder: the full one.
      c: what is measured.
      results: where rows go; what is there is not measured again.
      about: fields of every row: model, objective, step, samples_seen, config_hash, device, versions.
    """

    def __init__(self, encoder: Encoder, c: SweepConfig, results: Results, about: dict[str, Any]):
        self._encoder, self._c, self._results, self._about = encoder, c, results, about

    def todo(self) -> dict[str, list[Cell]]:
        """The cells of each data set that are not done."""
        return {name: [cell for cell in cells(self._c) if not self._done(name, cell)] for name in self._c.datasets}

    def run(self, progress: Callable[[], None]) -> None:
        """Measures what is left; calls `progress` after each cell."""
        for name, missing in self.todo().items():
            if missing:
                bench = _Bench(self._encoder, self._c, load(self._encoder, self._c.datasets[name]))
                for cell in missing:
                    template = self._template(name, cell)
                    self._results.add(list(bench.measure(cell, template)))
                    progress()

    def _done(self, dataset: str, cell: Cell) -> bool:
        probe, metric = LAST
        return dataclasses.replace(self._template(dataset, cell), probe=probe, metric=metric) in self._results

    def _template(self, dataset: str, cell: Cell) -> Row:
        params, operations, relative = _cost(self._encoder.config, cell.mode, cell.ordering, cell.width)
        fields = dict(self._about)
        if cell.weights == RANDOM:
            fields |= {"model": RANDOM, "objective": "none", "step": 0, "samples_seen": 0}
        return Row(
            study=self._c.study,
            params=params,
            flops=operations,
            compute=relative["full"],
            compute_published=relative["published"],
            width=cell.width,
            depth=0.0 if cell.mode == "control" else 1.0,
            mode=cell.mode,
            ordering=cell.ordering,
            recovery=cell.recovery,
            dataset=dataset,
            split=self._c.datasets[dataset].test_split,
            probe="",
            metric="",
            value=None,
            seed=cell.seed,
            **fields,
        )


@functools.cache
def _cost(full: ViTConfig, mode: str, control: str, width: float) -> tuple[int, int, dict[str, float]]:
    """Parameters, operations (`full` convention) and these relative to the full encoder, by convention."""
    shapes, names = abstract_vit(full)
    whole = flops(names, shapes, whole_image(full))
    if mode == "control":
        stem = 0 if control == "band_statistics" else 1
        relative = {kind: stem * whole[kind]["stem"] / whole[kind]["encoder"] for kind in CONVENTIONS}
        return stem * parameter_counts(names, shapes)["stem"], stem * whole["full"]["stem"], relative
    small = full.resized(_plan(full, mode, width))
    shapes, names = abstract_vit(small)
    cut = flops(names, shapes, whole_image(small))
    relative = {kind: cut[kind]["encoder"] / whole[kind]["encoder"] for kind in CONVENTIONS}
    return parameter_counts(names, shapes)["encoder"], cut["full"]["encoder"], relative


@functools.cache
def _plan(full: ViTConfig, mode: str, width: float) -> Mapping[str, int]:
    return mode_plan(axis_sizes(*abstract_vit(full)), width, mode)


class _Bench:
    """One data set in memory, and what the full encoder does on it."""

    def __init__(self, encoder: Encoder, c: SweepConfig, splits: dict[str, Images]):
        self._encoder, self._c, self._splits = encoder, c, splits
        self._full = self._features(functools.partial(encoder.features, pool=c.pool))
        self._slimmer = functools.lru_cache(maxsize=1)(self._calibrated)  # the widths of a seed follow each other
        self._kept: tuple[Cell, dict[str, int]] | None = None
        self._latest: dict[str, np.ndarray] = {}
        self._outcomes: dict[tuple[str, int], tuple[Outcome, dict[str, np.ndarray]]] = {}

    def measure(self, cell: Cell, template: Row) -> Iterator[Row]:
        """The rows of a cell: its probes, its distance from the full encoder and the spectrum of its features."""
        features = self._cut_features(cell)
        for probe in self._c.probes:
            for metric, value, low, high in self._scores(probe, features, cell.seed):
                yield dataclasses.replace(template, probe=probe, metric=metric, value=value, low=low, high=high)
        for metric, number in self._statistics(features["test"]):
            yield dataclasses.replace(template, probe=LAST[0], metric=metric, value=number)

    def _cut_features(self, cell: Cell) -> dict[str, np.ndarray]:
        """Features of a cell; those of the cell before it where both keep the same units, as the smallest widths do."""
        if self._is_full(cell):
            return self._full
        plan = {} if cell.mode == "control" else _plan(self._encoder.config, cell.mode, cell.width)
        kept = (dataclasses.replace(cell, width=1.0), dict(plan))
        if kept != self._kept:
            self._kept, self._latest = kept, self._features(self._function(cell))
        return self._latest

    def _is_full(self, cell: Cell) -> bool:
        uncut = cell.width == 1 and cell.mode != "control" and cell.weights != RANDOM
        return uncut and (cell.ordering, cell.recovery) == ("first", "none")

    def _function(self, cell: Cell) -> Callable[[np.ndarray], np.ndarray]:
        if cell.mode == "control":
            return CONTROLS[cell.ordering](self._encoder, self._c.pool, cell.seed)
        if cell.weights == RANDOM:
            small = slim(random_weights(self._encoder, cell.seed), cell.width, cell.mode)
        else:
            slimmer = self._slimmer(cell.seed)
            small = slimmer(cell.width, cell.mode, cell.ordering, cell.recovery, cell.seed)
        return functools.partial(small.features, pool=self._c.pool)

    def _calibrated(self, seed: int) -> Slimmer:
        images = self._splits["train"].images
        chosen = np.random.default_rng(seed).permutation(len(images))[: self._c.calibration]
        return Slimmer(self._encoder, images[np.sort(chosen)] if len(chosen) else None)

    def _features(self, function: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        return {name: function(split.images) for name, split in self._splits.items()}

    def _probe(self, probe: str, features: dict[str, np.ndarray], seed: int) -> tuple[Outcome, dict[str, np.ndarray]]:
        options: dict[str, Any] = {"seed": seed}
        if probe == "knn":
            options = {"k": self._c.neighbours, "metric": self._c.distance}
        labelled = {name: (features[name], split.labels) for name, split in self._splits.items()}
        outcome = PROBES[probe](labelled["train"], labelled["test"], labelled.get("validation"), **options)
        return outcome, outcome.replicates(self._c.draws)

    def _scores(
        self, probe: str, features: dict[str, np.ndarray], seed: int
    ) -> Iterator[tuple[str, float, float, float]]:
        """Every score, and how much of the full encoder's it is, each with its paired bootstrap interval."""
        if (probe, seed) not in self._outcomes:
            self._outcomes[probe, seed] = self._probe(probe, self._full, seed)
        full, full_draws = self._outcomes[probe, seed]
        outcome, draws = (full, full_draws) if features is self._full else self._probe(probe, features, seed)
        best, chance = full.scores(), full.chance()
        for metric, score in outcome.scores().items():
            yield metric, score, *percentile_interval(draws[metric])
            kept = retention([score], best[metric], chance[metric])
            kept_draws = retention(draws[metric], full_draws[metric], chance[metric])
            for kind in ("retention", "retention_above_chance"):
                interval = percentile_interval(kept_draws[kind][np.isfinite(kept_draws[kind])])
                yield f"{metric}_{kind}", float(kept[kind][0]), *interval

    def _statistics(self, features: np.ndarray) -> Iterator[tuple[str, float | None]]:
        full = self._full["test"]
        if features.shape == full.shape:
            error = np.linalg.norm(features - full) / np.linalg.norm(full - full.mean(0))
            yield "relative_error", float(error)
        moments = spectra.accumulate([features])
        measures: dict[str, Callable[[spectra.Moments], float]] = {
            "mean_feature_correlation": spectra.mean_feature_correlation,
            f"explained_variance_slope_{self._c.components}": functools.partial(
                spectra.explained_variance_slope, components=self._c.components
            ),
            LAST[1]: spectra.participation_ratio,
        }
        for metric, measure in measures.items():
            try:
                yield metric, measure(moments)
            except UserError as e:  # fewer directions than components: not a number, and no reason to stop
                log.info("%s is not defined: %s", metric, e)
                yield metric, None
