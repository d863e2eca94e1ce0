"""Exploratory, after the tests of `decide.py`: is a retained share large because the cut keeps more, or because the
full encoder gains less? Points above depth 0, mean of RSSCN7 and Caltech101, s = 0.1.

PYTHONPATH=. python results/redundancy/kept.py results/redundancy/seed*.rows.jsonl
"""

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np

from scaling.core.rows import read_rows

DECIDE = runpy.run_path(str(Path(__file__).parent / "decide.py"))


def lines(found: dict[str, Any]) -> list[str]:
    """One line for each probe and pretraining set, encoders by seed, and two for the permutation tests of a probe.

    found: `all_measured` of `decide.py`.
    """
    said = []
    for probe, kept in found.items():
        _, sets, *gained = DECIDE["gains"](kept)
        cut, full = (100 * points.mean(1) for points in gained)
        for name in sorted(set(sets)):
            mine = np.array(sets) == name
            wholes, cuts = (" ".join(f"{x:5.1f}" for x in points[mine]) for points in (full, cut))
            said.append(f"{probe:<6} {name:<12} full encoder +{wholes}   its cut +{cuts}")
        for what, points in (("full encoder", full), ("its cut", cut)):
            p = DECIDE["of_pretraining"](points, sets)
            said.append(f"{probe:<6} {what} between pretraining sets: p {p:.4f}, exploratory and not corrected")
    return said


if __name__ == "__main__":
    rows = [row for file in sys.argv[1:] for row in read_rows(file)]
    print("\n".join(lines(DECIDE["all_measured"](rows))))
