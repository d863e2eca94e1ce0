"""Numbers that others published beside those measured here, with the difference and its interval."""

import dataclasses
from collections.abc import Mapping, Sequence

from scaling.analysis.tables import line
from scaling.core.errors import UserError
from scaling.core.rows import LABELS, Row

_HEAD = ("model", "s", "compute", "ours", "theirs", "difference", "kept, ours", "kept, theirs", "difference")


@dataclasses.dataclass(frozen=True)
class Compared:
    """One cell of a published table.

    Attributes:
      ours: the score measured here, with its interval.
      theirs: the published score; None where it was not published.
      kept: share of the full encoder's score, as `ours`; None where it is not defined.
      kept_theirs: the same of the published scores.
    """

    ours: Row
    theirs: float | None
    kept: Row | None
    kept_theirs: float | None


def compared(ours: Sequence[Row], theirs: Sequence[Row], dataset: str, probe: str, metric: str) -> list[Compared]:
    """The cells of one published table that were measured here, model by model; of models that it does not have, at the
    widths that it has for others.

    Raises:
      UserError: a cell of `ours` has several rows; several seeds are one row, their mean.
    """
    table = [r for r in theirs if (r.dataset, r.probe, r.metric) == (dataset, probe, metric)]
    published = {(r.model, r.width_ratio): r.value for r in table}
    widths = sorted({r.width_ratio for r in table}) or sorted({r.width_ratio for r in ours})
    found = []
    for model in dict.fromkeys(r.model for r in ours if r.dataset == dataset):
        for width in widths:
            here = [r for r in ours if (r.model, r.dataset, r.probe, r.width_ratio) == (model, dataset, probe, width)]
            score, kept = (_only([r for r in here if r.metric == m]) for m in (metric, f"{metric}_retention"))
            if score is None:
                continue
            value, full = published.get((model, width)), published.get((model, 1.0))
            share = value / full if value is not None and full else None
            found.append(Compared(score, value, kept, share))
    return found


def _only(rows: Sequence[Row]) -> Row | None:
    if len(rows) > 1:
        r = rows[0]
        raise UserError(
            f"{len(rows)} rows of {r.model}, s = {r.width_ratio:g}, on {r.dataset}: {r.probe} {r.metric}; give one: "
            "that of the newest configuration, with the mean over seeds"
        )
    return rows[0] if rows else None


def beside_tables(
    ours: Sequence[Row], theirs: Sequence[Row], notes: Mapping[tuple[str, str], str] | None = None
) -> str:
    """A table for each data set and probe with all cells of `compared`, in Markdown; a difference has the interval of
    ours, for of theirs none is published. `notes`: a line for tables, by data set and probe. Raises as `compared`.
    """
    parts = []
    for dataset, probe in dict.fromkeys((r.dataset, r.probe) for r in ours):
        metrics = [r.metric for r in theirs if (r.dataset, r.probe) == (dataset, probe)]
        if not metrics:
            continue
        cells = compared(ours, theirs, dataset, probe, metrics[0])
        lines = [f"### {dataset}, {probe}: {metrics[0].replace('_', ' ')}", ""]
        lines += [f"{note[0].upper()}{note[1:]}.", ""] if (note := (notes or {}).get((dataset, probe), "")) else []
        lines += [line(_HEAD), line(["---"] * len(_HEAD))]
        for cell in cells:
            row = cell.ours
            at = [row.model, f"{row.width_ratio:g}", f"{row.compute_published:.1%}"]
            lines.append(line([*at, *_pair(row, cell.theirs), *_pair(cell.kept, cell.kept_theirs)]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n" if parts else ""


def beyond(ours: Sequence[Row], theirs: Sequence[Row]) -> list[str]:
    """A line for each part of `ours` that no table of `beside_tables` has: scores of a data set and probe, or widths,
    that are not published.
    """
    widths: dict[tuple[str, str], set[float]] = {}
    for r in theirs:
        widths.setdefault((r.dataset, r.probe), set()).add(r.width_ratio)
    lines = []
    for dataset, probe in dict.fromkeys((r.dataset, r.probe) for r in ours if r.probe not in ("features", LABELS)):
        there = {r.width_ratio for r in ours if (r.dataset, r.probe) == (dataset, probe)}
        known = widths.get((dataset, probe))
        if known is None:
            lines.append(f"{dataset}, {probe}: no scores of it are published")
        elif more := sorted(there - known):
            lines.append(f"{dataset}, {probe}: s = {', '.join(f'{width:g}' for width in more)}")
    return lines


def _pair(ours: Row | None, theirs: float | None) -> list[str]:
    """Ours, theirs, and the difference, as cells."""
    if ours is None or ours.value is None:
        return ["not defined", "" if theirs is None else f"{theirs:.4f}", ""]
    mine = f"{ours.value:.4f}{_interval(ours, 0.0, '.4f')}"
    if theirs is None:
        return [mine, "not published", ""]
    return [mine, f"{theirs:.4f}", f"{ours.value - theirs:+.4f}{_interval(ours, theirs, '+.4f')}"]


def _interval(row: Row, shift: float, how: str) -> str:
    if row.low is None or row.high is None:
        return ""
    return f" ({row.low - shift:{how}} to {row.high - shift:{how}})"
