"""Share of an encoder's score above cheap features (a floor) that its cuts retain."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from scaling.analysis.tables import curves, table
from scaling.core.rows import Row
from scaling.evaluation.ratios import fieller_interval
from scaling.evaluation.scores import Interval, percentile_interval
from scaling.studies.checking import Outcomes

SCORE, DEPTH_0 = "macro_accuracy", "depth_0"


@dataclasses.dataclass(frozen=True)
class AboveFloor:
    """The cuts of one encoder on one data set and probe, above one floor.

    Attributes:
      where: data set and probe.
      floor, score: name and score of the floor.
      full: score of the full encoder.
      span: full - floor, and its paired interval.
      kept: (row of the cut, share of the span that it keeps, and Fieller's interval of that share; None if the span is
        not significantly above zero).
    """

    where: tuple[str, str]
    floor: str
    score: float
    full: float
    span: tuple[float, Interval]
    kept: list[tuple[Row, float, Interval]]


def above_floors(rows: Sequence[Row], draws: int = 1000) -> Iterator[AboveFloor]:
    """For every encoder, data set and probe: the cuts above the best floor (the control with the highest score on the
    same test images, which favours the control) and above depth 0. Empty if rows have no outcomes.
    """
    outcomes = Outcomes(rows, draws)
    scored = [row for row in rows if row.metric == SCORE and outcomes.known(row)]
    for dataset, probe, model in dict.fromkeys((r.dataset, r.probe, r.model) for r in scored if r.objective != "none"):
        there = [r for r in scored if (r.dataset, r.probe) == (dataset, probe)]
        floors = _floors([r for r in there if r.model == model or r.objective == "none"], outcomes)
        cuts = [r for r in there if r.model == model and r.mode != "control"]
        whole = [r for r in cuts if (r.width_ratio, r.ordering, r.recovery) == (1.0, "first", "none")]
        if not floors or not whole:
            continue
        best = max(floors, key=lambda name: floors[name][0])
        for name in dict.fromkeys((best, DEPTH_0)):
            if name in floors:
                yield _above((dataset, probe), name, floors[name], whole[0], cuts, outcomes)


Scored = tuple[float, np.ndarray]  # a score and its bootstrap replicates


def _floors(rows: list[Row], outcomes: Outcomes) -> dict[str, Scored]:
    """Floors by name; scores are means over seeds."""
    found: dict[str, list[Scored]] = {}
    for row in rows:
        if row.mode == "control" or (row.objective == "none" and row.width_ratio == 1):
            name = row.ordering if row.mode == "control" else row.model
            found.setdefault(name, []).append(outcomes.scored(row))
    means = {name: ([x for x, _ in all_], [draws for _, draws in all_]) for name, all_ in found.items()}
    return {name: (float(np.mean(x)), np.mean(draws, axis=0)) for name, (x, draws) in means.items()}


def _above(
    where: tuple[str, str], name: str, floor: Scored, whole: Row, cuts: list[Row], outcomes: Outcomes
) -> AboveFloor:
    full, full_draws = outcomes.scored(whole)
    span, span_draws = full - floor[0], full_draws - floor[1]
    kept = []
    for row in cuts:
        value, draws = outcomes.scored(row)
        numerator, numerator_draws = value - floor[0], draws - floor[1]
        interval = fieller_interval(numerator, span, np.cov(numerator_draws, span_draws))
        sure = interval[0] is not None and span > 0
        kept.append((row, numerator / span if span else float("nan"), interval if sure else (None, None)))
    return AboveFloor(where, name, floor[0], full, (span, percentile_interval(span_draws)), kept)


def floor_tables(rows: Sequence[Row], draws: int = 1000) -> str:
    """Markdown with a table for every encoder, data set, probe and floor, and a line for each way to cut; for
    several seeds the mean and the widest interval. Empty if rows have no outcomes.
    """
    return "\n".join(_table(above) for above in above_floors(rows, draws))


def _table(above: AboveFloor) -> str:
    (span, (low, high)), (dataset, probe) = above.span, above.where
    lines = [
        f"### {dataset}, {probe}: kept above {above.floor}",
        "",
        f"{SCORE.replace('_', ' ')} {above.full:.3f}, {above.floor} {above.score:.3f}, "
        f"difference {span:+.3f} ({low:+.3f} to {high:+.3f}).",
        "",
    ]
    if not any(interval[0] is not None for _, _, interval in above.kept):
        lines += ["The full encoder is not above it for sure: no share of the difference is defined.", ""]
        return "\n".join(lines)
    widths = sorted({row.width_ratio for row, *_ in above.kept})
    cells = [["", *(f"s = {s:g}" for s in widths)]]
    for curve, rows in curves(row for row, *_ in above.kept).items():
        mine = [one for one in above.kept if one[0] in rows]
        cells.append([curve, *(_cell([one for one in mine if one[0].width_ratio == s]) for s in widths)])
    return "\n".join([*lines, *table(cells), ""])


def _cell(found: list[tuple[Row, float, Interval]]) -> str:
    if not found:
        return ""
    lows, highs = ([interval[i] for *_, interval in found] for i in (0, 1))
    mean = f"{np.mean([share for _, share, _ in found]):.2f}"
    known = None not in (*lows, *highs)
    return f"{mean} ({min(lows):.2f} to {max(highs):.2f})" if known else mean  # type: ignore[type-var]
