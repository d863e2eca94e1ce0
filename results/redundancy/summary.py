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


OF_THE_SET: dict[str, Callable[[Row], bool]] = {  # the same for all encoders of a pretraining set: measured with one
    "hand-made features": lambda r: r.ordering == "handmade",
    "random weights": lambda r: _random(r) and r.ordering == "first" and r.width_ratio == 1,
}
OF_THE_ENCODER: dict[str, Callable[[Row], bool]] = {
    "depth 0": lambda r: r.ordering == "depth_0",
    "full": lambda r: not _random(r) and r.ordering == "first" and r.width_ratio == 1,
    "cut": lambda r: not _random(r) and (r.ordering, r.recovery, r.width_ratio) == ("first", "none", WIDTH),
    "repaired": lambda r: not _random(r) and (r.ordering, r.recovery, r.width_ratio) == ("svd", "ridge", WIDTH),
}


def score(rows: list[Row], dataset: str, probe: str, chosen: Callable[[Row], bool]) -> float:
    """Macro accuracy in percent; the rows that fit must agree."""
    found = {
        r.value
        for r in rows
        if (r.dataset, r.probe, r.metric) == (dataset, probe, "macro_accuracy") and r.seed == 0 and chosen(r)
    }
    (value,) = found
    return 100 * value


def lines(files: list[Path]) -> list[str]:
    """One line for each encoder, probed data set and probe; a set that the encoder was pretrained on is in italics."""
    columns = [*OF_THE_SET, *OF_THE_ENCODER]
    table = [f"| encoder | probed on | probe | {' | '.join(columns)} |", f"|---|---|---{'|--:' * len(columns)}|"]
    encoders = {file.name.split(".")[0]: read_rows(str(file)) for file in sorted(files)}
    for encoder, own in encoders.items():
        pretrained_on = encoder.partition("_")[2]
        alike = [row for name, rows in encoders.items() if name.endswith(pretrained_on) for row in rows]
        for dataset in SETS:
            name = f"*{dataset}*" if pretrained_on == dataset else dataset
            for probe in PROBES:
                values = [score(alike, dataset, probe, chosen) for chosen in OF_THE_SET.values()]
                values += [score(own, dataset, probe, chosen) for chosen in OF_THE_ENCODER.values()]
                table.append(f"| {encoder} | {name} | {probe} | {' | '.join(f'{x:.1f}' for x in values)} |")
    return table


if __name__ == "__main__":
    print("\n".join(lines([Path(name) for name in sys.argv[1:]])))
