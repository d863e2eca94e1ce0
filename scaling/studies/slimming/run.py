"""Measures many narrower versions of one encoder beside the full one: cuts x data sets x probes x seeds.

The unit of work, a job of `scaling.studies.grid`, is a cell: one encoder on one data set. Images are decoded once for
all cells of a data set, and features computed once for all probes; the rows of a cell are written together, and the
last one marks it as done. Programs are compiled once per shape of the cut encoder, whatever the ordering, recovery,
data set and seed.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

from scaling.compute.counting import CONVENTIONS, encoder_cost, image_flops, parameter_counts
from scaling.core.errors import UserError
from scaling.core.rows import Row
from scaling.encoders.encoder import Encoder
from scaling.encoders.handmade import FLOORS
from scaling.models.config import ViTConfig
from scaling.models.variants import Architecture
from scaling.models.vit import abstract_vit
from scaling.studies.grid import Job, StudyError
from scaling.studies.rows import encoder_row
from scaling.studies.slimming.cells import RANDOM, Cell, SlimmingStudyConfig, cells
from scaling.studies.slimming.measure import LAST, Bench, cut_plan

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CellJob:
    """One encoder on one data set; `template` has the fields that all its rows share, `bench` returns the data set."""

    name: str
    cell: Cell
    template: Row
    bench: Callable[[str], Bench]

    @property
    def cost(self) -> float:
        """Cost relative to the full encoder; the probes add about a tenth of it at any width."""
        return 0.1 + self.template.compute

    def run(self) -> list[Row]:
        try:
            bench = self.bench(self.template.dataset)
        except UserError as e:  # an error that affects all cells of the data set
            raise StudyError(e) from e
        try:
            return list(bench.measure(self.cell, self.template))
        except UserError as e:  # an error of one cell only
            log.error("%s: %s", self.name, e)
            raise


def complete(job: Job, known: Callable[[Row], bool]) -> bool:
    """Whether the last row of a cell exists."""
    assert isinstance(job, CellJob)
    return known(dataclasses.replace(job.template, probe=LAST[0], metric=LAST[1]))


def study_jobs(encoder: Encoder, c: SlimmingStudyConfig, about: dict[str, Any]) -> list[CellJob]:
    """The cells of a study over one encoder, those of a data set after each other.

    Args:
      encoder: the full encoder.
      c: settings of the study.
      about: fields of every row: model, objective, step, samples_seen, config_hash, device, versions.
    """
    bench = functools.lru_cache(maxsize=1)(lambda name: Bench(encoder, c, c.datasets[name]))
    return [
        CellJob(f"{name}, {_words(cell)}", cell, _template(encoder, c, about, name, cell), bench)
        for name in c.datasets
        for cell in cells(c, encoder.config.depth)
    ]


def _template(encoder: Encoder, c: SlimmingStudyConfig, about: dict[str, Any], dataset: str, cell: Cell) -> Row:
    fields = dict(about)
    if cell.weights == RANDOM:
        fields |= {"model": RANDOM, "objective": "none", "step": 0, "samples_seen": 0}
    return encoder_row(
        cell_cost(encoder.architecture, cell.mode, cell.ordering, cell.width),
        study=c.study,
        width_ratio=cell.width,
        depth_ratio=0.0 if cell.mode == "control" else _depth_ratio(encoder.config, cell),
        mode=cell.mode,
        ordering=cell.ordering,
        recovery=cell.recovery,
        dataset=dataset,
        split=c.datasets[dataset].test_split,
        seed=cell.seed,
        **fields,
    )


def _depth_ratio(full: ViTConfig, cell: Cell) -> float:
    return cut_plan(full, cell.mode, cell.width).get("layers", full.depth) / full.depth


def _words(cell: Cell) -> str:
    return " ".join(f"{name}={value}" for name, value in dataclasses.asdict(cell).items())


@functools.cache
def cell_cost(a: Architecture, mode: str, control: str, width: float) -> tuple[int, int, dict[str, float]]:
    """Parameters, operations (`full` convention) and these relative to the full encoder, by convention."""
    if mode == "control":
        shapes, names = abstract_vit(a.config)
        whole = image_flops(a, names, shapes)
        stem = 0 if control in ("band_statistics", *FLOORS) else 1
        relative = {kind: stem * whole[kind]["stem"] / whole[kind]["encoder"] for kind in CONVENTIONS}
        return stem * parameter_counts(names, shapes)["stem"], stem * whole["full"]["stem"], relative
    return encoder_cost(a, a.config.resized(cut_plan(a.config, mode, width)))
