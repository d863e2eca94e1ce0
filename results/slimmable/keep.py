"""Keeps the rows that this study commits, of many that were measured: macro accuracy with outcomes, and labels; of the
runs, held-out loss and seconds.

    PYTHONPATH=. python results/slimmable/keep.py results/slimmable/rows.jsonl runs/slim_slimmable/*/rows.jsonl
    PYTHONPATH=. python results/slimmable/keep.py results/slimmable/runs.rows.jsonl runs/slimmable/rows.jsonl
"""

import sys

from scaling.core.rows import LABELS, read_rows, write_rows

METRICS = ("macro_accuracy", "eval_loss", "train_seconds")


def main() -> None:
    rows = [row for file in sys.argv[2:] for row in read_rows(file)]
    kept = {row.identity: row for row in rows if row.probe == LABELS or row.metric in METRICS}
    write_rows(sys.argv[1], kept.values())


if __name__ == "__main__":
    main()
