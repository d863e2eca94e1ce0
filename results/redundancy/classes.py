"""S3, as `PLAN.md` has it: does what a cut keeps depend on the number of classes, or on the domain?

    for run in runs/pretraining_sets/runs/*; do
      PYTHONPATH=. python results/redundancy/classes.py measure --checkpoint=$run --data=../shared/data \\
          --tables=runs/redundancy --output=runs/class_count
    done
    PYTHONPATH=. python results/redundancy/classes.py decide runs/class_count/*.csv

`measure` writes a table of one encoder: for every drawn set of classes what the full encoder, its published cut and
depth 0 score by 5-NN. `decide` fits the mixed model by maximum likelihood: R on log2 K (centred), the domain (-1/2 for
overhead images, 1/2 for objects) and their product, with a random intercept of every encoder and one of every draw.
"""

import argparse
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats

from scaling.core.files import write_whole
from scaling.encoders.controls import CONTROLS
from scaling.encoders.loading import load_encoder
from scaling.encoders.slimmed import slim
from scaling.evaluation.knn import knn_probe
from scaling.studies.slimming.datasets import DatasetConfig, Images, load

WIDTH, DRAWS, A_CLASS, LEAST, MARGIN = 0.1, 20, 30, 0.02, 0.02
COUNTS = {"rssccn7": (2, 4, 7), "eurosat": (2, 5, 10), "caltech101": (2, 5, 10, 30, 100)}
COUNTS["tinyimagenet"] = COUNTS["caltech101"]
OVERHEAD = ("rssccn7", "eurosat")
FIELDS = ("encoder", "dataset", "classes", "draw", "full", "cut", "depth_0")


def drawn(labels: Images, rest: Images, count: int, draw: int, stream: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the training and of the test images of a draw of classes, the same for every encoder: all test images,
    and 30 training images a class, or all there are.
    """
    rng = np.random.default_rng((stream, count, draw))
    classes = rng.choice(np.unique(labels.labels), count, replace=False)
    some = (np.flatnonzero(labels.labels == name) for name in np.sort(classes))
    train = np.concatenate([np.sort(rng.permutation(rows)[:A_CLASS]) for rows in some])
    return train, np.flatnonzero(np.isin(rest.labels, classes))


def measured(checkpoint: Path, sources: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The table of an encoder, row by row."""
    encoder = load_encoder(checkpoint)
    subjects = {"full": encoder, "cut": slim(encoder, WIDTH)}
    for dataset, source in sources.items():
        splits = load(encoder, DatasetConfig(source=source))
        train, test = splits["train"], splits["test"]
        made = {
            name: [x.features(part.images, normalised=True) for part in (train, test)] for name, x in subjects.items()
        }
        floor = CONTROLS["depth_0"](encoder, "mean", 0)
        made["depth_0"] = [floor(part.images) for part in (train, test)]
        for count in COUNTS[dataset]:
            for draw in range(DRAWS):
                rows, asked = drawn(train, test, count, draw, list(COUNTS).index(dataset))
                scores = {
                    name: knn_probe((x[0][rows], train.labels[rows]), (x[1][asked], test.labels[asked]))
                    for name, x in made.items()
                }
                values = {name: found.scores()["macro_accuracy"] for name, found in scores.items()}
                yield {"encoder": checkpoint.name, "dataset": dataset, "classes": count, "draw": draw, **values}


class Fit(NamedTuple):
    """A linear mixed model at the largest likelihood: coefficients, their covariance, log likelihood, and the variances
    of the random intercepts over that of the residual.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    likelihood: float
    ratios: np.ndarray


def fitted(y: np.ndarray, x: np.ndarray, groups: Sequence[np.ndarray]) -> Fit:
    """Maximum likelihood of y [n] = x [n, k] b + intercepts of each grouping [n] + noise.

    The covariance I + Z Z^T, where Z has a column for every group of every grouping, scaled by the root of its variance
    ratio, is solved by Woodbury's identity; b and the variance of the noise are profiled out.
    """
    columns = [(g[:, None] == np.unique(g)).astype(float) for g in groups]

    def at(log_ratios: np.ndarray) -> Fit:
        z = np.concatenate([np.exp(r / 2) * c for r, c in zip(log_ratios, columns, strict=True)], axis=1)
        inner = np.eye(z.shape[1]) + z.T @ z
        solved = x - z @ np.linalg.solve(inner, z.T @ x)  # V^-1 x
        gram = x.T @ solved
        b = np.linalg.solve(gram, solved.T @ y)
        left = y - x @ b
        squares = float(left @ (left - z @ np.linalg.solve(inner, z.T @ left)))
        noise = squares / len(y)
        likelihood = -0.5 * (len(y) * (np.log(2 * np.pi * noise) + 1) + np.linalg.slogdet(inner)[1])
        return Fit(b, noise * np.linalg.inv(gram), float(likelihood), np.exp(log_ratios))

    start = np.zeros(len(columns))
    best = optimize.minimize(
        lambda r: -at(np.clip(r, -20, 20)).likelihood,
        start,
        method="Nelder-Mead",
        options={"xatol": 1e-4, "fatol": 1e-8},
    )
    return at(np.clip(best.x, -20, 20))


def decide(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The conclusions, line by line. Encoders are not tested on the set that they were pretrained on."""
    own = [r for r in rows if r["encoder"].partition("_")[2] == r["dataset"]]
    rows = [r for r in rows if r not in own]
    said = [f"left out of all tests: {len(own)} draws of the set that an encoder was pretrained on"] if own else []
    for dataset, count in dict.fromkeys((r["dataset"], r["classes"]) for r in rows):
        there = [r for r in rows if (r["dataset"], r["classes"]) == (dataset, count)]
        kept, span = (sum(r[name] - r["depth_0"] for r in there) for name in ("cut", "full"))
        out = sum(r["full"] - r["depth_0"] < LEAST for r in there)
        ratio = f"{kept / span:.3f}" if span > 0 else "not defined"
        said.append(f"{dataset:<13} {count:>4} classes: ratio of sums {ratio}; {out} of {len(there)} draws have no R")
    used = [r for r in rows if r["full"] - r["depth_0"] >= LEAST]
    y = np.array([(r["cut"] - r["depth_0"]) / (r["full"] - r["depth_0"]) for r in used])
    doublings = np.log2([r["classes"] for r in used])
    domain = np.array([-0.5 if r["dataset"] in OVERHEAD else 0.5 for r in used])
    x = np.stack([np.ones(len(used)), doublings - doublings.mean(), domain], axis=1)
    x = np.column_stack([x, x[:, 1] * domain])
    encoders = np.array([r["encoder"] for r in used])
    draws = np.array([f"{r['dataset']} {r['classes']} {r['draw']}" for r in used])
    whole = fitted(y, x, [encoders, draws])
    for name, kept_columns in (("slope", [0, 2]), ("domain", [0, 1])):
        less = fitted(y, x[:, kept_columns], [encoders, draws])
        ratio = 2 * (whole.likelihood - less.likelihood)
        said.append(
            f"without the {name} and its product: likelihood ratio {ratio:.2f}, p {stats.chi2.sf(ratio, 2):.4f}"
        )
    slope, error = whole.coefficients[1], np.sqrt(whole.covariance[1, 1])
    low, high = slope + stats.norm.ppf([0.05, 0.95]) * error
    apart, apart_error = whole.coefficients[2], np.sqrt(whole.covariance[2, 2])
    said.append(
        f"objects minus overhead, at the mean number of classes: {apart:+.3f} (standard error {apart_error:.3f})"
    )
    alike = max(abs(low), abs(high)) < MARGIN
    said.append(
        f"slope of R per doubling {slope:+.4f}, 90 % interval {low:+.4f} to {high:+.4f}: class count is "
        f"{'' if alike else 'not '}without effect within {MARGIN}"
    )
    return said


def read(files: Sequence[str]) -> list[dict[str, Any]]:
    """The tables of `measure`."""
    rows = [row for file in files for row in csv.DictReader(io.StringIO(Path(file).read_text()))]
    whole = {"classes", "draw"}
    texts = {"encoder", "dataset"}
    return [{k: v if k in texts else int(v) if k in whole else float(v) for k, v in row.items()} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    measure = parts.add_parser("measure")
    flags = {"checkpoint": "run of an encoder", "data": "folder with the data sets", "output": "folder of the table"}
    for name, what in {**flags, "tables": "folder with caltech101.csv of tables.py"}.items():
        measure.add_argument(f"--{name}", type=Path, required=True, help=what)
    parts.add_parser("decide").add_argument("files", nargs="+")
    arguments = parser.parse_args()
    if arguments.part == "decide":
        print("\n".join(decide(read(arguments.files))))
        return
    sources = {name: f"zip:{arguments.data}/{name}/images.zip" for name in COUNTS}
    sources["caltech101"] += f"?labels={arguments.tables}/caltech101.csv"
    out = io.StringIO()
    table = csv.DictWriter(out, FIELDS, lineterminator="\n")
    table.writeheader()
    for row in measured(arguments.checkpoint, sources):
        table.writerow(row)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_whole(arguments.output / f"{arguments.checkpoint.name}.csv", out.getvalue().encode())


if __name__ == "__main__":
    main()
