"""Prints what README.md says of the lines beside it: scores with intervals over images, and paired differences.

PYTHONPATH=. python results/detection/verdicts.py
"""

import json
from pathlib import Path

import numpy as np

from scaling.evaluation.detection import average_precision, mean_of_defined
from scaling.evaluation.scores import percentile_interval, resampled

DRAWS = 1000
PAIRS = (("ssdd_pretrained", "ssdd_random"), ("ssdd_retinanet", "ssdd_pretrained"))


def read(file):
    """Lines of the runs, and of their classes by run, in order."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    runs = {line["run"]: line for line in lines if "class" not in line}
    classes = {name: [line for line in lines if line["run"] == name and "class" in line] for name in runs}
    return runs, classes


def ap(line, weights, eleven=True):
    """Average precision of a class for images that count [R, images] times."""
    outcome, image = np.array(line["outcome"], int), np.array(line["image"], int)
    mine = weights[:, image].astype(float)
    right, wrong = mine * (outcome == 1), mine * (outcome == 0)
    return average_precision(right, wrong, (weights * np.array(line["truths"])).sum(1), eleven)


def mean_ap(lines, weights):
    """The mean over the classes that have a truth."""
    return np.array([mean_of_defined(each) for each in zip(*(ap(line, weights) for line in lines), strict=True)])


def replicates(lines):
    images = len(lines[0]["truths"])
    return np.concatenate([mean_ap(lines, weights) for weights in resampled(images, DRAWS, 0)])


def whole(lines):
    return np.ones((1, len(lines[0]["truths"])), int)


def with_interval(value, values, form="{:.3f}"):
    return "{} ({} to {})".format(*(form.format(x) for x in (value, *percentile_interval(values))))


def main() -> None:
    runs, classes = read(Path(__file__).parent / "matches.jsonl")
    for name, run in runs.items():
        lines = classes[name]
        objects, every = sum(sum(line["truths"]) for line in lines), replicates(lines)
        told = with_interval(mean_ap(lines, whole(lines))[0], every)
        minutes = f"{run['core_seconds'] / 60:.0f}"
        print(f"| {name} | {len(lines[0]['truths'])} | {objects} | {run['steps']} | {minutes} | {told} |")
    for name, lines in classes.items():
        for line in lines:
            if total := sum(line["truths"]):
                values = [ap(line, whole(lines), eleven)[0] for eleven in (True, False)]
                found = line["outcome"].count(1) / total
                print(f"| {name} | {line['class']} | {total} | {values[0]:.3f} | {values[1]:.3f} | {found:.3f} |")
    for one, other in (pair for pair in PAIRS if set(pair) <= set(runs)):
        apart = mean_ap(classes[one], whole(classes[one])) - mean_ap(classes[other], whole(classes[other]))
        told = with_interval(apart[0], replicates(classes[one]) - replicates(classes[other]), "{:+.3f}")
        print(f"| {one} - {other} | {told} |")


if __name__ == "__main__":
    main()
