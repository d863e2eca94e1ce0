"""Rows of measurements as tables for the eye, in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from scaling.analysis.significance import holm, p_of_interval
from scaling.core.rows import LABELS, Row


def sweep_tables(rows: Sequence[Row]) -> str:
    """One table per data set, probe and metric: a line for each way to cut, a column for each width, the mean over
    seeds with the widest of their 95 % intervals, and of how many seeds where others have no value. The controls that
    are not cut follow each table. Gains that stand after Holm over their table are bold.
    """
    parts = []
    kinds = dict.fromkeys((r.dataset, r.probe, r.metric) for r in rows if r.probe != LABELS)
    for dataset, probe, metric in kinds:
        found = [r for r in rows if (r.dataset, r.probe, r.metric) == (dataset, probe, metric)]
        cut = [r for r in found if r.mode != "control"]
        known = [r for r in cut if r.value is not None]
        if not known:
            continue
        widths = sorted({r.width_ratio for r in known})
        lines = [f"### {dataset}, {probe}: {metric.replace('_', ' ')}", ""]
        lines += [_line(["", *(f"s = {s:g}" for s in widths)]), _line(["---"] * (len(widths) + 1))]
        there = {
            (curve, s): [r for r in cut if (curve_name(r), r.width_ratio) == (curve, s)]
            for curve in dict.fromkeys(map(curve_name, known))
            for s in widths
        }
        stand = _standing(there) if metric.endswith("_gain") else set()
        for curve in dict.fromkeys(map(curve_name, known)):
            cells = (f"**{_cell(there[curve, s])}**" if (curve, s) in stand else _cell(there[curve, s]) for s in widths)
            lines.append(_line([curve, *cells]))
        lines += ["", "Bold: stands after Holm over this table, at 5 %."] if stand else []
        controls = dict.fromkeys(r.ordering for r in found if r.mode == "control" and r.value is not None)
        values = [f"{name} {_cell(r for r in found if r.ordering == name)}" for name in controls]
        parts.append("\n".join([*lines, *(["", "Controls: " + "; ".join(values)] if values else [])]))
    return "\n\n".join(parts) + "\n"


def _standing(cells: Mapping[Any, Sequence[Row]]) -> set[Any]:
    """The cells of a table of differences that are not zero at 5 % after Holm over all that have intervals."""
    known = {}
    for cell, rows in cells.items():
        lows, highs = [r.low for r in rows if r.low is not None], [r.high for r in rows if r.high is not None]
        values = [r.value for r in rows if r.value is not None]
        if rows and len(lows) == len(highs) == len(values) == len(rows) and min(lows) < max(highs):
            known[cell] = (float(np.mean(values)), min(lows), max(highs))
    if not known:
        return set()
    p = holm(p_of_interval(*np.array(list(known.values())).T))
    return {cell for cell, adjusted in zip(known, p, strict=True) if adjusted < 0.05}


def curve_name(row: Row) -> str:
    """The model, how its units were ordered, and what was done beyond the published way."""
    beyond = (part for part in (row.mode, row.recovery) if part not in ("inner", "none"))
    return " ".join((row.model, row.ordering, *beyond))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(rows: Iterable[Row]) -> str:
    """`0.571 (0.550 to 0.592)`, `0.571 (2 of 3 seeds)`, or nothing."""
    rows = list(rows)
    values = [r.value for r in rows if r.value is not None]
    if not values:
        return ""
    mean = f"{np.mean(values):.3f}"
    if len(values) < len(rows):
        return f"{mean} ({len(values)} of {len(rows)} seeds)"
    lows, highs = [r.low for r in rows if r.low is not None], [r.high for r in rows if r.high is not None]
    return f"{mean} ({min(lows):.3f} to {max(highs):.3f})" if len(lows) == len(highs) == len(rows) else mean
