"""S5, as `PLAN.md` has it: does the best learning rate move between widths 32 and 256 under muP?

PYTHONPATH=. python results/redundancy/rates.py runs/lr_transfer_seeds/rows.jsonl
"""

import itertools
import math
import sys

import numpy as np
from scipy import stats

from scaling.core.rows import Row, read_rows
from scaling.evaluation.scores import seed_interval

WIDTHS, FACTOR = (32, 256), 1.5


def vertices(rows: list[Row]) -> dict[tuple[int, int], float | None]:
    """(width, seed) -> log of the best rate: the vertex of a parabola through the held-out losses over log rate; None
    where it does not open upwards, the vertex lies outside the rates, or a rate has no loss.
    """
    found: dict[tuple[int, int], float | None] = {}
    losses = [row for row in rows if row.metric == "eval_loss"]
    tried = sorted({row.base_lr for row in losses})
    for width, seed in itertools.product(sorted({row.embed for row in losses}), sorted({row.seed for row in losses})):
        there = {row.base_lr: row.value for row in losses if (row.embed, row.seed) == (width, seed)}
        values = [there.get(rate) for rate in tried]
        if None in values:
            found[width, seed] = None
            continue
        curvature, incline, _ = np.polyfit(np.log(tried), np.array(values, float), 2)
        vertex = -incline / (2 * curvature) if curvature > 0 else math.nan
        found[width, seed] = float(vertex) if math.log(tried[0]) <= vertex <= math.log(tried[-1]) else None
    return found


def shifts(found: dict[tuple[int, int], float | None]) -> list[float]:
    """log of best rate at the larger width over best rate at the smaller one, of the seeds where both are bracketed."""
    small, large = ({seed: x for (width, seed), x in found.items() if width == w} for w in WIDTHS)
    pairs = ((small[seed], large[seed]) for seed in sorted(small.keys() & large.keys()))
    return [b - a for a, b in pairs if a is not None and b is not None]


def main() -> None:
    found = vertices([row for file in sys.argv[1:] for row in read_rows(file)])
    for (width, seed), vertex in found.items():
        print(f"width {width:>3}, seed {seed}: " + ("not bracketed" if vertex is None else f"{math.exp(vertex):.4f}"))
    moved = shifts(found)
    if len(moved) < 2 or None in found.values():
        print("not every parabola is bracketed: nothing is said about equivalence")
        return
    low, high = (math.exp(x) for x in seed_interval(moved))
    inner = seed_interval(moved, 0.9)
    alike = max(abs(x) for x in inner) < math.log(FACTOR)
    p = float(stats.ttest_1samp(moved, 0).pvalue)
    what = f"best rate at width {WIDTHS[1]} over that at {WIDTHS[0]}"
    print(f"{what}: {math.exp(np.mean(moved)):.2f} ({low:.2f} to {high:.2f}), p {p:.3f}")
    ends = " to ".join(f"{math.exp(x):.2f}" for x in inner)
    print(f"90 % interval {ends}: {'' if alike else 'not '}equivalent within a factor of {FACTOR}")


if __name__ == "__main__":
    main()
