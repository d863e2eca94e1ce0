"""Gradients of the narrower widths beside the full one's, from the logs of the slimmable runs.

PYTHONPATH=. python results/slimmable/gradients.py runs/slimmable/runs/*_slimmable_seed*

Means over the logged steps of the second half of every run, and over the runs of an objective: the cosine of a width's
gradient with the full one's among the parameters that both have, and its norm in units of the full one's.
"""

import sys
from pathlib import Path

import numpy as np

from scaling.analysis.tables import table
from scaling.training.writers import read_metrics

LABELS = ("smallest", "random_1", "random_2", "random_3")
SMALLEST = 0.05


def logged(run: Path) -> list[tuple[float, float, float]]:
    """(width, cosine, relative norm) of every narrower network of the logged steps in the second half."""
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "grad_norm_full" in row]
    return [
        (
            round(row.get(f"width_{label}", SMALLEST), 6),
            row[f"grad_cosine_{label}"],
            row[f"grad_norm_{label}"] / row["grad_norm_full"],
        )
        for row in rows[len(rows) // 2 :]
        for label in LABELS
    ]


def main() -> None:
    by: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for run in map(Path, sys.argv[1:]):
        for width, cosine, norm in logged(run):
            by.setdefault((run.name.split("_")[0], width), []).append((cosine, norm))
    widths = sorted({width for _, width in by})
    rows = [["", *(f"s = {width:g}" for width in widths)]]
    for objective in sorted({objective for objective, _ in by}):
        for place, what in enumerate(("cosine", "relative norm")):
            means = (np.mean([pair[place] for pair in by[objective, width]]) for width in widths)
            rows.append([f"{objective}, {what}", *(f"{mean:.2f}" for mean in means)])
    print("\n".join(table(rows, "--:")))


if __name__ == "__main__":
    main()
