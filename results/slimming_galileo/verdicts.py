"""The tables of README.md from the rows beside it: scores of cuts, and what they keep above floors.

PYTHONPATH=. python results/slimming_galileo/verdicts.py
"""

from collections.abc import Sequence
from pathlib import Path

from scaling.analysis import tables
from scaling.core.rows import Row, read_rows
from scaling.evaluation.scores import Interval
from scaling.studies.floors import SCORE, AboveFloor, above_floors

ROWS = Path(__file__).parent / "rows.jsonl"
CUTS = {
    "published": ("first", "none"),
    "first + ridge": ("first", "ridge"),
    "svd": ("svd", "none"),
    "svd + ridge": ("svd", "ridge"),
}
CONTROLS = ("patch_embedding", "depth_0", "colour_histogram", "handmade")


def main() -> None:
    rows = read_rows(ROWS)
    found = list(above_floors(rows))
    for probe in ("knn", "linear"):
        scores = [row for row in rows if (row.metric, row.probe) == (SCORE, probe)]
        controls = {row.ordering: row for row in scores if row.mode == "control"}
        print(probe, "; ".join(f"{name} {_score(controls[name])}" for name in CONTROLS))
        table(scores, {above.floor: above for above in found if above.where[1] == probe})


def table(scores: Sequence[Row], above: dict[str, AboveFloor]) -> None:
    """Scores of one probe, and the shares that the published cut and the repaired one keep."""
    cut = {(r.ordering, r.recovery, r.width_ratio): r for r in scores if r.mode == "inner" and r.objective != "none"}
    random = {r.width_ratio: r for r in scores if r.objective == "none"}
    kept = {
        (floor, r.ordering, r.recovery, r.width_ratio): (share, interval)
        for floor, one in above.items()
        for r, share, interval in one.kept
    }
    shares = [(floor, name) for floor in above for name in ("published", "svd + ridge")]
    heads = ["s", "operations", "random weights", *CUTS, *(f"{name}, above {floor}" for floor, name in shares)]
    rows = [heads]
    for width in sorted({r.width_ratio for r in cut.values()}):
        scored = [_score(cut[*how, width]) for how in CUTS.values()]
        cells = [_share(*kept[floor, *CUTS[name], width]) for floor, name in shares]
        compute = cut["first", "none", width].compute
        rows.append([f"{width:g}", f"{compute:.3f}", _score(random[width]), *scored, *cells])
    print("\n".join(tables.table(rows, "--:")))


def _score(row: Row) -> str:
    assert row.value is not None
    assert row.low is not None
    assert row.high is not None
    return f"{100 * row.value:.1f} ({100 * row.low:.1f} to {100 * row.high:.1f})"


def _share(share: float, interval: Interval) -> str:
    low, high = interval
    return "not defined" if low is None or high is None else f"{share:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
