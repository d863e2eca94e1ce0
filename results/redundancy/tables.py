"""Writes the table of labels of Caltech101 without the clutter and the second set of faces: 100 classes.

python results/redundancy/tables.py --data=../shared/data --output=runs/redundancy
"""

import argparse
import csv
from pathlib import Path

LEFT_OUT = ("BACKGROUND_Google", "Faces")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--output", type=Path, required=True, help="where the table goes")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.data / "caltech101" / "labels.csv").open(newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["label"] not in LEFT_OUT]
    with (arguments.output / "caltech101.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, ("name", "label", "split"))
        writer.writeheader()
        writer.writerows({name: row[name] for name in ("name", "label", "split")} for row in rows)


if __name__ == "__main__":
    main()
