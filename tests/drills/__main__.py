"""Runs drills: all, or those named; see the package."""

import argparse
import fnmatch
import sys
import time
from pathlib import Path

from tests.drills import record
from tests.drills.parts import PARTS

RESULTS = Path(__file__).resolve().parents[2] / "results" / "drills"


def main() -> int:
    """Returns 1 if a case ended in a defect."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("names", nargs="*", default=["*"], help="drills, or drill:part; all by default")
    parser.add_argument("--seed", type=int, help="first case; nothing is recorded")
    parser.add_argument("--count", type=int, help="number of cases from --seed, or of each part; nothing is recorded")
    parser.add_argument("--short", action="store_true", help="a few cases of each; nothing is recorded")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no block is begun after this time")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the rows and the page")
    parser.add_argument("--list", action="store_true", help="the parts and their counts")
    given = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names from hostile files
    chosen = [part for part in PARTS if any(fnmatch.fnmatch(part.name, f"{name}*") for name in given.names)]
    if not chosen:
        parser.error(f"no drill {' '.join(given.names)}; there is {', '.join(part.name for part in PARTS)}")
    if given.list:
        print("\n".join(f"{part.name:24} {part.count:6,} {part.about}" for part in chosen))
        return 0
    if given.seed is not None or given.count is not None:
        return _shown(given, chosen)
    deadline = time.monotonic() + 60 * given.minutes
    if given.short:
        return int(any(row.defects for row in record.run_short(chosen, deadline, record.read(given.output))))
    rows = record.run_missing(given.output, chosen, deadline)
    record.write_page(given.output, PARTS)
    return int(any(row.defects for row in rows))


def _shown(given: argparse.Namespace, chosen: list) -> int:
    first, count, defects = given.seed or 0, given.count or 1, 0
    for part in chosen:
        for outcome in part.run(range(first, first + count)):
            print(f"{part.name} --seed={outcome.case}: {outcome.verdict} {outcome.what}", flush=True)
            defects += outcome.verdict == "defect"
    return int(defects > 0)


if __name__ == "__main__":
    sys.exit(main())
