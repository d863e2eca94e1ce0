"""The table of scores in README.md: macro accuracy of every encoder of S2, of its cuts at s = 0.1 and of its floors.

PYTHONPATH=. python results/redundancy/summary.py results/redundancy/seed*.rows.jsonl
"""

import sys
from collections.abc import Callable
from pathlib import Path

from scaling.core.rows import Row, read_rows

SETS, PROBES, WIDTH = ("rssccn7", "eurosat", "caltech101", "tinyimagenet"), ("knn", "linear"), 0.1


def _random(row: Row) -> bool:
    return row.model == "random_weights"


COLUMNS: dict[str, Callable[[Row], bool]] = {
    "depth 0": lambda r: r.ordering == "depth_0",
    "hand-made features": lambda r: r.ordering == "handmade",
    "random weights": lambda r: _random(r) and r.ordering == "first" and r.width_ratio == 1,
    "full": lambda r: not _random(r) and r.ordering == "first" and r.width_ratio == 1,
    "cut": lambda r: not _random(r) and (r.ordering, r.recovery, r.width_ratio) == ("first", "none", WIDTH),
    "repaired": lambda r: not _random(r) and (r.ordering, r.recovery, r.width_ratio) == ("svd", "ridge", WIDTH),
}


def score(rows: list[Row], dataset: str, probe: str, chosen: Callable[[Row], bool]) -> float:
    """Macro accuracy in percent; the rows that fit must agree (the first of random weights is seed 0)."""
    found = {
        r.value
        for r in rows
        if (r.dataset, r.probe, r.metric) == (dataset, probe, "macro_accuracy") and r.seed == 0 and chosen(r)
    }
    (value,) = found
    return 100 * value


def lines(files: list[Path]) -> list[str]:
    """One line for each encoder, probed data set and probe; a set that the encoder was pretrained on is in italics."""
    table = [f"| encoder | probed on | probe | {' | '.join(COLUMNS)} |", f"|---|---|---{'|--:' * len(COLUMNS)}|"]
    for file in sorted(files):
        rows, encoder = read_rows(str(file)), file.name.split(".")[0]
        for dataset in SETS:
            name = f"*{dataset}*" if encoder.endswith(dataset) else dataset
            for probe in PROBES:
                values = (f"{score(rows, dataset, probe, chosen):.1f}" for chosen in COLUMNS.values())
                table.append(f"| {encoder} | {name} | {probe} | {' | '.join(values)} |")
    return table


if __name__ == "__main__":
    print("\n".join(lines([Path(name) for name in sys.argv[1:]])))
