"""Tests of the claims of this study on its rows: differences paired by seed, with Student's t intervals, and Holm.

PYTHONPATH=. python results/width_depth/verdicts.py
"""

from pathlib import Path

import numpy as np
from scipy import stats

from scaling.analysis.significance import holm
from scaling.core.rows import Row, read_rows
from scaling.evaluation.scores import seed_interval

HERE = Path(__file__).parent


def main() -> None:
    width = _losses("width", lambda row: (row.parametrization, row.embed))
    depth = _losses("depth", lambda row: (row.parametrization, row.layers))
    widths = sorted({w for _, w in width})
    print("Held-out loss, standard minus muP at one width, three seeds, p after Holm over the five")
    _table([(str(w), width["standard", w], width["mup", w]) for w in widths if w != 64])
    print("\nStandard, wider minus width 64 (positive: worse)")
    _table([(str(w), width["standard", w], width["standard", 64]) for w in widths if w > 64])
    print("\nmuP, wider minus width 64 (negative: better)")
    _table([(str(w), width["mup", w], width["mup", 64]) for w in widths if w > 64])
    print("\nDepth at width 64")
    pairs = [
        ("CompleteP, 12 layers minus 2", depth["completep", 12], depth["completep", 2]),
        ("muP, 12 layers minus 2", depth["mup", 12], depth["mup", 2]),
        ("2 layers, CompleteP minus muP", depth["completep", 2], depth["mup", 2]),
        ("best against best: 12 CompleteP minus 2 muP", depth["completep", 12], depth["mup", 2]),
    ]
    _table(pairs)
    print("\nLoss at every base rate, one seed")
    for name in ("tuning", "lr_transfer_240", "lr_transfer"):
        cells = _losses(name, lambda row: (row.embed, row.parametrization, row.base_lr))
        for where in sorted({cell[:2] for cell in cells}):
            rates = {rate: cells[*where, rate][0] for *there, rate in sorted(cells) if tuple(there) == where}
            print(f"  {name} width {where[0]} {where[1]}:", *(f"{rate:g} {loss:.3f}" for rate, loss in rates.items()))
    print("\nLaw of muP: error of predicting the two largest widths by the mean of width 128 (root mean square)")
    measured = np.array([*width["mup", 192], *width["mup", 256]])
    error = np.sqrt(np.mean(np.log(np.mean(width["mup", 128]) / measured) ** 2))
    print(f"  {100 * error:.2f} %")


def _losses(name: str, key) -> dict:
    """Losses by key, in the order of the seeds."""
    found: dict = {}
    rows: list[Row] = [row for row in read_rows(HERE / f"{name}.rows.jsonl") if row.metric == "eval_loss"]
    for row in sorted(rows, key=lambda row: row.seed):
        found.setdefault(key(row), []).append(row.value)
    return found


def _table(pairs: list) -> None:
    differences = [np.subtract(a, b) for _, a, b in pairs]
    p = [stats.ttest_1samp(d, 0).pvalue for d in differences]
    for (name, *_), d, own, adjusted in zip(pairs, differences, p, holm(p), strict=True):
        low, high = seed_interval(d)
        seeds = ", ".join(f"{x:+.3f}" for x in d)
        print(f"  {name:<44} {d.mean():+.4f} ({low:+.3f} to {high:+.3f}) p {own:.2f}, Holm {adjusted:.2f}; {seeds}")


if __name__ == "__main__":
    main()
