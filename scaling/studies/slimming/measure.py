"""Measures the encoders of a slimming study on one data set."""

import dataclasses
import functools
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from scaling.core.errors import UserError
from scaling.core.rows import Row
from scaling.data.sources.registry import limited_split
from scaling.encoders.controls import CONTROLS, random_weights
from scaling.encoders.encoder import Encoder, finite
from scaling.encoders.handmade import FLOORS, floor_features
from scaling.encoders.pruned import features_of_depths
from scaling.encoders.slimmed import Slimmer, slim
from scaling.evaluation import spectra
from scaling.evaluation.outcomes import labels_row, outcomes_of
from scaling.evaluation.probes import PROBES
from scaling.evaluation.scores import Predictions, percentile_interval, retention
from scaling.models.config import ViTConfig
from scaling.models.vit import abstract_vit
from scaling.slimming.cutting import axis_sizes
from scaling.slimming.widths import mode_axes, mode_plan
from scaling.studies.grid import StoppedError
from scaling.studies.slimming.calibrating import calibration_images
from scaling.studies.slimming.cells import FINETUNE, RANDOM, Cell, SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig, load
from scaling.tasks.finetuning import Finetuning
from scaling.training.loop import Stopped

log = logging.getLogger(__name__)

LAST = ("features", "participation_ratio")  # probe and metric of the row that completes a cell


@functools.cache
def cut_plan(full: ViTConfig, mode: str, width: float) -> Mapping[str, int]:
    """Axis -> number of its units that a width keeps."""
    return mode_plan(axis_sizes(*abstract_vit(full)), width, mode)


@dataclasses.dataclass(frozen=True)
class _Subject:
    """The subject of measurements: features by split, and the encoder they come from, if any."""

    encoder: Encoder | None
    features: dict[str, np.ndarray]


_Scored = tuple[Predictions, dict[str, np.ndarray]]  # with the bootstrap replicates of its scores


class Bench:
    """A data set in memory, with the results of the full encoder on it."""

    def __init__(self, encoder: Encoder, c: SlimmingStudyConfig, dataset: DatasetConfig):
        self._encoder, self._c, self._dataset = encoder, c, dataset
        self._splits = load(encoder, dataset)
        self._full = self._encoded(encoder)
        self._slimmer = functools.lru_cache(maxsize=1)(self._calibrated)  # the widths of a seed follow each other
        self._of_depths = functools.lru_cache(maxsize=1)(self._passed)
        self._kept: tuple[Cell, dict[str, int]] | None = None
        self._latest = self._full
        self._published: dict[tuple[str, Cell], _Scored] = {}

    def measure(self, cell: Cell, template: Row) -> Iterator[Row]:
        """The rows of a cell: its probes, its distance from the full encoder and the spectrum of its features."""
        subject = self._subject(cell)
        if cell.weights != RANDOM:  # once for all cells of the encoder
            yield from labels_row(template, self._splits["test"].labels)
        for probe in self._c.probes:
            if probe == FINETUNE and subject.encoder is None:
                continue
            yield from self._scores(probe, subject, cell, dataclasses.replace(template, probe=probe))
        for metric, number in self._statistics(subject.features["test"]):
            yield dataclasses.replace(template, probe=LAST[0], metric=metric, value=number)

    def _subject(self, cell: Cell) -> _Subject:
        """The subject of a cell; the previous cell's if both keep the same units, as happens at the smallest widths."""
        if self._is_full(cell):
            return self._full
        plan = {} if cell.mode == "control" else cut_plan(self._encoder.config, cell.mode, cell.width)
        kept = (dataclasses.replace(cell, width=1.0), dict(plan))
        if kept != self._kept:
            self._kept, self._latest = kept, self._make(cell)
        return self._latest

    def _is_full(self, cell: Cell) -> bool:
        uncut = cell.width == 1 and cell.mode != "control" and cell.weights != RANDOM
        return uncut and (cell.ordering, cell.recovery) == ("first", "none")

    def _make(self, cell: Cell) -> _Subject:
        if cell.ordering in FLOORS:
            return _Subject(None, floor_features(cell.ordering, {n: x.images for n, x in self._splits.items()}))
        if cell.mode == "control":
            return _Subject(None, self._features(CONTROLS[cell.ordering](self._encoder, self._c.pool, cell.seed)))
        if mode_axes(cell.mode) == ("layers",):
            return self._shallower(cell)
        if cell.weights == RANDOM:
            return self._encoded(slim(random_weights(self._encoder, cell.seed), cell.width, cell.mode))
        slimmer = self._slimmer(cell.seed)
        return self._encoded(slimmer(cell.width, cell.mode, cell.ordering, cell.recovery, cell.seed))

    def _shallower(self, cell: Cell) -> _Subject:
        """The first blocks; one pass over the images is enough for all depths."""
        depth = cut_plan(self._encoder.config, cell.mode, cell.width)["layers"]
        whole, features = self._of_depths(cell.seed if cell.weights == RANDOM else None)
        cut = slim(whole, cell.width, cell.mode)
        return _Subject(cut, {name: finite(found[depth - 1]) for name, found in features.items()})

    def _passed(self, random: int | None) -> tuple[Encoder, dict[str, np.ndarray]]:
        """The encoder, or random weights of this seed, and its features after every block, [L, N, D]: L times the
        memory of one encoder's features.
        """
        encoder = self._encoder if random is None else random_weights(self._encoder, random)
        return encoder, self._features(functools.partial(features_of_depths, encoder, pool=self._c.pool))

    def _encoded(self, encoder: Encoder) -> _Subject:
        return _Subject(encoder, self._features(functools.partial(encoder.encode, pool=self._c.pool)))

    def _calibrated(self, seed: int) -> Slimmer:
        images = self._splits["train"].images
        return Slimmer(self._encoder, calibration_images(self._encoder, self._c, images, seed))

    def _features(self, function: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        return {name: function(split.images) for name, split in self._splits.items()}

    def _probe(self, probe: str, subject: _Subject, seed: int) -> _Scored:
        if probe == FINETUNE:
            assert subject.encoder is not None
            outcome = self._finetune(subject.encoder, seed)
        else:
            options: dict[str, Any] = {"seed": seed}
            if probe == "knn":
                options = {"k": self._c.neighbours, "metric": self._c.distance}
            labelled = {name: (subject.features[name], split.labels) for name, split in self._splits.items()}
            outcome = PROBES[probe](labelled["train"], labelled["test"], labelled.get("validation"), **options)
        return outcome, outcome.replicates(self._c.draws)

    def _finetune(self, encoder: Encoder, seed: int) -> Predictions:
        """The predictions of `scaling.finetune` on this data set; the run itself is not kept."""
        d, c = self._dataset, self._c.finetune
        data = dataclasses.replace(c.data, **_data_fields(d))
        test = limited_split(d.source, d.test_split, d.limit)
        recipe = dataclasses.replace(c, data=data, test_split=test, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            tuned = Finetuning(encoder, recipe).run(folder)
        if isinstance(tuned, Stopped):
            raise StoppedError(tuned.exit_code)
        assert isinstance(tuned.predictions, Predictions)
        return tuned.predictions

    def _scores(self, probe: str, subject: _Subject, cell: Cell, template: Row) -> Iterator[Row]:
        """Rows of every score with its outcomes; of the share of the full encoder's score that it retains; and, for a
        cut other than the published one, of the gain over the published cut of the same width. Each has an interval,
        the last two a paired one. The share of a score that is not above chance is undefined.
        """

        def measured(metric: str, value: float | None, low: float | None, high: float | None, bits: str = "") -> Row:
            return dataclasses.replace(template, metric=metric, value=value, low=low, high=high, outcomes=bits)

        full, full_draws = self._as_published(probe, Cell(1.0, "inner", seed=cell.seed))
        plain = Cell(cell.width, cell.mode, seed=cell.seed)
        outcome, draws = self._as_published(probe, plain) if cell == plain else self._probe(probe, subject, cell.seed)
        best, chance = full.scores(), full.chance()
        bits = outcomes_of(outcome) if np.array_equal(outcome.truth, self._splits["test"].labels) else ""
        for metric, score in outcome.scores().items():
            yield measured(metric, score, *percentile_interval(draws[metric]), bits)
            kept = retention([score], best[metric], chance[metric])
            kept_draws = retention(draws[metric], full_draws[metric], chance[metric])
            for kind in ("retention", "retention_above_chance"):
                share = float(kept[kind][0])
                interval = percentile_interval(kept_draws[kind]) if np.isfinite(share) else (None, None)
                yield measured(f"{metric}_{kind}", share if np.isfinite(share) else None, *interval)
            if cell != plain and cell.mode != "control" and cell.weights != RANDOM:
                first, first_draws = self._as_published(probe, plain)
                gained = percentile_interval(draws[metric] - first_draws[metric])
                yield measured(f"{metric}_gain", score - first.scores()[metric], *gained)

    def _as_published(self, probe: str, cell: Cell) -> _Scored:
        """Predictions of the published cut of the same width, or of the uncut encoder; measured once."""
        if (probe, cell) not in self._published:
            self._published[probe, cell] = self._probe(probe, self._subject(cell), cell.seed)
        return self._published[probe, cell]

    def _statistics(self, features: np.ndarray) -> Iterator[tuple[str, float | None]]:
        full = self._full.features["test"]
        if features.shape == full.shape:
            spread = np.linalg.norm(full - full.mean(0))
            yield "relative_error", float(np.linalg.norm(features - full) / spread) if spread else None
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
            except UserError as e:  # fewer directions than components: undefined, but no reason to stop
                log.info("%s is not defined: %s", metric, e)
                yield metric, None


def _data_fields(d: DatasetConfig) -> dict[str, Any]:
    """The fields of a `DataConfig` that a data set determines; without a validation split a part of the training
    images is held out.
    """
    return {
        "source": d.source,
        "split": limited_split(d.source, d.train_split, d.limit),
        "eval_split": d.validation_split and limited_split(d.source, d.validation_split, d.limit),
        "bands": d.bands,
        "mean": d.mean,
        "std": d.std,
    }
