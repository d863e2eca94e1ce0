"""The primary test of S4 and its gate, as `PLAN.md` has them: does the loss of a cut grow with training?

    PYTHONPATH=. python results/redundancy/length.py runs/slim_length/rows.jsonl

Rows of `scaling.slim --config=slim_redundancy.py` on the encoders of `configs/sweeps/length.py`.
"""

import sys

import numpy as np
from scipy import stats

from scaling.core.rows import Row, read_rows
from scaling.evaluation.scores import percentile_interval
from scaling.studies.checking import Outcomes
from scaling.studies.floors import DEPTH_0, SCORE, above_floors

DATASET, PROBE, WIDTH, HANDMADE = "rssccn7", "knn", 0.1, "handmade"


def retained(rows: list[Row]) -> tuple[dict[str, tuple[int, float]], list[str]]:
    """Encoder -> its steps and R, and the encoders whose R is not defined."""
    found: dict[str, tuple[int, float]] = {}
    undefined = []
    for above in above_floors(
        [row for row in rows if (row.dataset, row.probe) in ((DATASET, PROBE), (DATASET, "labels"))]
    ):
        if above.floor != DEPTH_0:
            continue
        for row, share, _ in above.kept:
            if (row.width_ratio, row.ordering, row.recovery) == (WIDTH, "first", "none"):
                low = above.span[1][0]
                if low is not None and low > 0:
                    found[row.model] = row.step, share
                else:
                    undefined.append(row.model)
    return found, undefined


def slope(found: dict[str, tuple[int, float]]) -> tuple[float, float, float]:
    """Slope of R on log2 steps, its standard error, and the one-sided p of a fall, Student's t with n - 2 degrees of
    freedom.

    Raises:
      ValueError: fewer than three encoders, or all of one length.
    """
    steps, kept = (np.array(x, float) for x in zip(*found.values(), strict=True))
    fit = stats.linregress(np.log2(steps), kept, alternative="less")
    return float(fit.slope), float(fit.stderr), float(fit.pvalue)


def gate(rows: list[Row]) -> tuple[int, float, tuple[float | None, float | None], int]:
    """Steps of the longest trained encoders, how far their mean is above hand-made features, its paired interval over
    the test images, and how many encoders there are.
    """
    outcomes = Outcomes(rows)
    scored = [r for r in rows if (r.dataset, r.probe, r.metric) == (DATASET, PROBE, SCORE) and outcomes.known(r)]
    whole = [r for r in scored if (r.width_ratio, r.ordering, r.recovery) == (1.0, "first", "none")]
    whole = [r for r in whole if r.objective != "none" and r.mode != "control"]
    longest = max(r.step for r in whole)
    values, draws = zip(*(outcomes.scored(r) for r in whole if r.step == longest), strict=True)
    floor, floor_draws = outcomes.scored(next(r for r in scored if r.ordering == HANDMADE))
    interval = percentile_interval(np.mean(draws, axis=0) - floor_draws)
    return longest, float(np.mean(values) - floor), interval, len(values)


def main() -> None:
    rows = [row for file in sys.argv[1:] for row in read_rows(file)]
    found, undefined = retained(rows)
    for model, (steps, kept) in sorted(found.items(), key=lambda item: (item[1][0], item[0])):
        print(f"{model:<20} {steps:>6,} steps   R {kept:.3f}")
    print(f"not defined: {', '.join(undefined) or 'none'}")
    by, error, p = slope(found)
    print(f"slope of R per doubling of the steps {by:+.4f} (standard error {error:.4f}), one-sided p of a fall {p:.4f}")
    longest, above, (low, high), encoders = gate(rows)
    passed = low is not None and low > 0
    ends = "" if low is None or high is None else f" ({100 * low:+.1f} to {100 * high:+.1f})"
    print(
        f"gate: at {longest:,} steps {100 * above:+.1f} points{ends} above hand-made features, {encoders} encoders: "
        f"{'passed' if passed else 'not passed: no retention here is of a useful model'}"
    )


if __name__ == "__main__":
    main()
