"""Many narrower versions of one encoder, measured beside the full one: cuts x data sets x probes x seeds.

The unit of work is a cell: one encoder on one data set. Its images are decoded once for all cells of a data set, its
features once for all probes; its rows are written together and the last of them says that it is done. Programs are
compiled once per shape of the cut encoder, whatever the ordering, recovery, data set and seed.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

from scaling.compute.counting import CONVENTIONS, encoder_cost, image_flops, parameter_counts
from scaling.core.errors import UserError
from scaling.core.rows import Results, Row
from scaling.encoders.encoder import Encoder
from scaling.models.variants import Architecture
from scaling.models.vit import abstract_vit
from scaling.studies.slimming.grid import RANDOM, Cell, SweepConfig, cells
from scaling.studies.slimming.measure import LAST, Bench, cut_plan

log = logging.getLogger(__name__)


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
        """Measures what is left; calls `progress` after each cell.

        Raises:
          UserError: a data set that cannot be used; or, when all the others are measured, cells that could not be.
        """
        failed: list[str] = []
        for name, missing in self.todo().items():
            if missing:
                bench = Bench(self._encoder, self._c, self._c.datasets[name])
                for cell in missing:
                    template = self._template(name, cell)
                    try:
                        self._results.add(list(bench.measure(cell, template)))
                    except UserError as e:  # of one cell; the others are worth having
                        failed.append(f"{name}, {_words(cell)}: {e}")
                        log.error("%s", failed[-1])
                    progress()
        if failed:
            raise UserError(f"{len(failed)} cells could not be measured, the others were; first {failed[0]}")

    def _done(self, dataset: str, cell: Cell) -> bool:
        probe, metric = LAST
        return dataclasses.replace(self._template(dataset, cell), probe=probe, metric=metric) in self._results

    def _template(self, dataset: str, cell: Cell) -> Row:
        params, operations, relative = _cost(self._encoder.architecture, cell.mode, cell.ordering, cell.width)
        fields = dict(self._about)
        if cell.weights == RANDOM:
            fields |= {"model": RANDOM, "objective": "none", "step": 0, "samples_seen": 0}
        return Row(
            study=self._c.study,
            params=params,
            flops=operations,
            compute=relative["full"],
            compute_published=relative["published"],
            width_ratio=cell.width,
            depth_ratio=0.0 if cell.mode == "control" else 1.0,
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


def _words(cell: Cell) -> str:
    return " ".join(f"{name}={value}" for name, value in dataclasses.asdict(cell).items())


@functools.cache
def _cost(a: Architecture, mode: str, control: str, width: float) -> tuple[int, int, dict[str, float]]:
    """Parameters, operations (`full` convention) and these relative to the full encoder, by convention."""
    if mode == "control":
        shapes, names = abstract_vit(a.config)
        whole = image_flops(a, names, shapes)
        stem = 0 if control == "band_statistics" else 1
        relative = {kind: stem * whole[kind]["stem"] / whole[kind]["encoder"] for kind in CONVENTIONS}
        return stem * parameter_counts(names, shapes)["stem"], stem * whole["full"]["stem"], relative
    return encoder_cost(a, a.config.resized(cut_plan(a.config, mode, width)))
