"""Writes tables of labels for two data sets with the same number of classes, training and test images a class.

    python results/slimming_hurricane/matched.py --data=../shared/data --output=runs/matched

rssccn7 has 7 classes of 200 + 200 images. Of caltech101 the 7 largest classes are taken, without the clutter
(`BACKGROUND_Google`) and `Faces`, whose photographs are those of `Faces_easy`. Of every class 30 training images, all
that caltech101 has, and 90 test images, each drawn from the fixed split with seed 0.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

CLASSES = {
    "rssccn7": ("aGrass", "bField", "cIndustry", "dRiverLake", "eForest", "fResident", "gParking"),
    "caltech101": ("airplanes", "Motorbikes", "Faces_easy", "watch", "Leopards", "bonsai", "car_side"),
}
IMAGES = {"train": 30, "test": 90}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the two data sets")
    parser.add_argument("--output", type=Path, required=True, help="where the tables go")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, classes in CLASSES.items():
        with (arguments.data / name / "labels.csv").open(newline="") as table:
            rows = list(csv.DictReader(table))
        rng = np.random.default_rng(0)
        with (arguments.output / f"{name}.csv").open("w", newline="") as table:
            writer = csv.DictWriter(table, ("name", "label", "split"))
            writer.writeheader()
            for label in classes:
                for split, count in IMAGES.items():
                    there = [row for row in rows if (row["label"], row["split"]) == (label, split)]
                    writer.writerows(there[i] for i in sorted(rng.permutation(len(there))[:count]))


if __name__ == "__main__":
    main()
