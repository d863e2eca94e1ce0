"""Exploratory, after the tests of `decide.py`: is a retained share large because the cut keeps more, or because the
full encoder gains less? Points above depth 0, mean of RSSCN7 and Caltech101, s = 0.1.

PYTHONPATH=. python results/redundancy/kept.py results/redundancy/seed*.rows.jsonl
"""

import runpy
import sys
from pathlib import Path

import numpy as np

from scaling.core.rows import Row, read_rows

DECIDE = runpy.run_path(str(Path(__file__).parent / "decide.py"))


def lines(rows: list[Row]) -> list[str]:
    """One line for each probe and pretraining set, encoders by seed, and two for the permutation tests of a probe."""
    said = []
    for probe in DECIDE["PROBES"]:
        kept = DECIDE["measured"](rows, probe)
        models = sorted(kept)
        sets = [model.partition("_")[2] for model in models]
        points = {
            f: 100 * np.array([[getattr(x, f) for x in kept[m].values()] for m in models]) for f in ("full", "cut")
        }
        means = {f: x.mean(1) for f, x in points.items()}
        for name in sorted(set(sets)):
            mine = np.array(sets) == name
            full, cut = (" ".join(f"{x:5.1f}" for x in means[f][mine]) for f in ("full", "cut"))
            said.append(f"{probe:<6} {name:<12} full encoder +{full}   its cut +{cut}")
        for what, f in (("full encoder", "full"), ("its cut", "cut")):
            p = DECIDE["of_pretraining"](means[f], sets)
            said.append(f"{probe:<6} {what} between pretraining sets: p {p:.4f}, exploratory and not corrected")
    return said


if __name__ == "__main__":
    print("\n".join(lines([row for file in sys.argv[1:] for row in read_rows(file)])))
