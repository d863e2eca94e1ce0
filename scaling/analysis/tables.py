"""Rows of measurements as Markdown tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from scaling.analysis.significance import holm, p_of_interval
from scaling.core.rows import LABELS, Row


def sweep_tables(rows: Sequence[Row]) -> str:
    """One table per data set, probe and metric, with a line for each way to cut and a column for each width: the mean
    over seeds with the widest of their 95 % intervals, and the number of seeds if some have no value. Controls that are
    not cut follow each table. Gains that are significant after Holm's correction over their table are bold.
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
        cells = [["", *(f"s = {s:g}" for s in widths)]]
        of_curve = curves(cut)
        there = {(curve, s): [r for r in of_curve[curve] if r.width_ratio == s] for curve in of_curve for s in widths}
        stand = _standing(there) if metric.endswith("_gain") else set()
        for curve in of_curve:
            there_of = {s: _cell(there[curve, s]) for s in widths}
            cells.append([curve, *(f"**{x}**" if (curve, s) in stand else x for s, x in there_of.items())])
        lines += table(cells)
        lines += ["", "Bold: stands after Holm over this table, at 5 %."] if stand else []
        values = [f"{name} {_cell(of_name)}" for name, of_name in controls(found).items()]
        parts.append("\n".join([*lines, *(["", "Controls: " + "; ".join(values)] if values else [])]))
    return "\n\n".join(parts) + "\n"


def _standing(cells: Mapping[Any, Sequence[Row]]) -> set[Any]:
    """The cells of a table of differences that are non-zero at 5 % after Holm's correction over all with intervals."""
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


def curves(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of every cut by the name of its curve, for curves with at least one value.

    Rows with the same width and seed but different values belong to different curves, which are distinguished in the
    name by the fields that differ. Identical rows count once.
    """
    return _told_apart([r for r in rows if r.mode != "control"], _curve_name)


def controls(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of every uncut control by its name, distinguished as in `curves`."""
    return _told_apart([r for r in rows if r.mode == "control"], lambda row: row.ordering)


_APART = ("model", "study", "step", "config_hash")


def _told_apart(rows: Sequence[Row], name_of: Callable[[Row], str]) -> dict[str, list[Row]]:
    named: dict[str, list[Row]] = {}
    for row in rows:
        named.setdefault(name_of(row), []).append(row)
    found: dict[str, list[Row]] = {}
    for name, all_ in named.items():
        fields: list[str] = []
        for field in _APART:
            if any(len({getattr(r, field) for r in cell}) > 1 for cell in _astray(all_, fields)):
                fields.append(field)
        for row in {(*_cell_of(row, fields), row.value): row for row in reversed(all_)}.values():
            what = ", ".join(f"{field.replace('_', ' ')} {getattr(row, field)}" for field in fields)
            found.setdefault(f"{name} ({what})" if what else name, []).insert(0, row)
    order = {id(row): number for number, row in enumerate(rows)}
    known = {name: there for name, there in found.items() if any(r.value is not None for r in there)}
    return dict(sorted(known.items(), key=lambda item: order[id(item[1][0])]))


def _astray(rows: Sequence[Row], fields: Sequence[str]) -> list[list[Row]]:
    """Rows with the same width, seed and fields but different values."""
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        cells.setdefault(_cell_of(row, fields), []).append(row)
    return [cell for cell in cells.values() if len({row.value for row in cell}) > 1]


def _cell_of(row: Row, fields: Sequence[str]) -> tuple[Any, ...]:
    of = (row.dataset, row.split, row.probe, row.metric, row.width_ratio, row.depth_ratio, row.seed)
    return (*of, *(getattr(row, field) for field in fields))


def _curve_name(row: Row) -> str:
    """The name of a curve: the model, the ordering of its units, and departures from the published cut."""
    beyond = (part for part in (row.mode, row.recovery) if part not in ("inner", "none"))
    return " ".join((row.model, row.ordering, *beyond))


def line(cells: Iterable[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def table(rows: Iterable[Sequence[str]], rule: str = "---") -> list[str]:
    """The lines of a table, from its cells by row. The first row is its head; rule: below all of this but the first
    cell, `--:` for columns of numbers.
    """
    head, *body = rows
    return [line(head), line(["---", *[rule] * (len(head) - 1)]), *map(line, body)]


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
