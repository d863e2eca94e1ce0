"""The rows to compare with published ones: of the newest measurement of each cell, as one mean over its seeds."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from scaling.core.rows import Row
from scaling.evaluation.scores import over_seeds, percentile_interval, seed_interval
from scaling.studies.checking import Outcomes

_IMAGES = "95 % intervals of seeds and test images (hierarchical bootstrap)"
_SEEDS = "95 % intervals of the seeds alone (Student's t), as rows of this score have no answers to draw from"


def newest(rows: Sequence[Row]) -> list[Row]:
    """The rows of the newest configuration of each model on each data set, by their order in the file."""
    latest = {(row.model, row.dataset): row.config_hash for row in rows}
    return [row for row in rows if row.config_hash == latest[row.model, row.dataset]]


def means(rows: Sequence[Row], theirs: Sequence[Row]) -> tuple[list[Row], dict[tuple[str, str], str]]:
    """One row for each cell of the published tables: the mean over its seeds. The mean of a score that is undefined for
    some seeds is undefined.

    Args:
      rows: rows measured here, see `newest`, with those of the labels.
      theirs: published rows; other scores and widths are left out.

    Returns:
      The rows, and by data set and probe the kind of interval of a mean over several seeds.

    Raises:
      UserError: outcomes that cannot be read.
    """
    pairs = ((r, metric) for r in theirs for metric in (r.metric, f"{r.metric}_retention"))
    wanted = {(r.dataset, r.probe, metric, r.width_ratio) for r, metric in pairs}
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if (row.dataset, row.probe, row.metric, row.width_ratio) in wanted:
            cells.setdefault(dataclasses.replace(row, seed=0).identity, []).append(row)
    outcomes, found, kinds = Outcomes(rows), list[Row](), dict[tuple[str, str], str]()
    for cell in cells.values():
        mean, kind = _mean(cell, outcomes) if len(cell) > 1 else (cell[0], "")
        found.append(mean)
        if kind:
            kinds[mean.dataset, mean.probe] = f"means over {len(cell)} seeds, {kind}"
    return found, kinds


def _mean(cell: Sequence[Row], outcomes: Outcomes) -> tuple[Row, str]:
    values = [row.value for row in cell if row.value is not None]
    if len(values) < len(cell):
        return dataclasses.replace(cell[0], value=None, low=None, high=None), ""
    again = [one for row in cell if (one := outcomes.recomputed(row))]
    if len(again) == len(cell):
        (low, high), kind = percentile_interval(over_seeds([one.replicates for one in again])), _IMAGES
    else:
        (low, high), kind = seed_interval(values), _SEEDS
    return dataclasses.replace(cell[0], value=sum(values) / len(values), low=low, high=high), kind
